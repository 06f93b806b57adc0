# make demo    from nothing to two trained detectors: what each finds, the more of the objects is hidden
# make test    linter, type checker and the whole test suite
# make docs    the documentation as a site, in site/
# make bench   speeds and memory, as ratios against peers measured in the same run
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install demo test lint docs bench clean
help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

install: $(VENV)/.installed
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("afrcnn needs Python 3.11 or newer; set PYTHON=python3.x") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2

# Every step can be interrupted and run again; `make clean` begins anew.
demo: install
	$(BIN)/afrcnn shapes demo/shapes --trainval 300 --test 80 --size 192 --classes bird crab fish person --sides 80 150 --occlusion 0
	$(BIN)/afrcnn compare demo/shapes shapes/small_methods --methods baseline occluding_cutout --seeds 1 --out demo/comparison

docs: install
	$(BIN)/mkdocs build --strict

bench: install
	$(BIN)/python benchmarks/detector_speed.py
	$(BIN)/python benchmarks/joint_step.py
	$(BIN)/python benchmarks/window_search.py
	$(BIN)/python benchmarks/voc_evaluation.py
	$(BIN)/python benchmarks/selective_search.py
	$(BIN)/python benchmarks/proposals_memory.py
	$(BIN)/python benchmarks/export.py

clean:
	rm -rf $(VENV) demo site
