# make demo    from nothing to a trained detector and its pictures, in minutes
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
	$(BIN)/afrcnn shapes demo/shapes --trainval 400 --test 80
	$(BIN)/afrcnn proposals demo/shapes
	$(BIN)/afrcnn train configs/shapes/small_frcn.yaml --run demo/run
	$(BIN)/afrcnn predict demo/run $(foreach i,0 1 2 3 4 5 6 7,demo/shapes/JPEGImages/test_00000$(i).jpg) --out demo/pictures
	$(BIN)/afrcnn evaluate demo/run

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
