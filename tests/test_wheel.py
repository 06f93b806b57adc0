"""The package as users install it: a wheel, in an environment of its own, used from an empty folder."""

import re
import site
import subprocess
import sys
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

COMMANDS = """
from pathlib import Path
import afrcnn
from afrcnn.cli import main

assert Path(afrcnn.__file__).is_relative_to(PREFIX), afrcnn.__file__
for words in (
    "shapes DATASET --trainval 4 --test 2 --size 96",
    "check DATASET",
    "proposals DATASET --jobs 1",
    "recipes",
    "train shapes/small_frcn --data.root DATASET --run runs/mine --schedule.iterations 2 --data.workers 0",
    "evaluate runs/mine --data.workers 0",
    "predict runs/mine DATASET/JPEGImages/test_000000.jpg --data.workers 0",
):
    assert main(words.split()) == 0, words
assert Path("runs/mine/results.json").is_file()
assert Path("runs/mine/predictions/test_000000.jpg").is_file()
"""


def run(*words: object, folder: Path) -> str:
    done = subprocess.run([*map(str, words)], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (find_spec("hatchling") and find_spec("hatch_fancy_pypi_readme") and find_spec("pip")):
        pytest.skip("what builds the wheel is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    build = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    run(*build, "--wheel-dir", folder, ROOT, folder=folder)
    [file] = folder.glob("*.whl")
    return file


def test_the_wheel_has_the_recipes_its_types_and_a_page_without_broken_links(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = (archive.read(name).decode() for name in names if name.endswith("/METADATA"))
    recipes = {file.relative_to(ROOT).as_posix() for file in ROOT.glob("configs/**/*.yaml")}
    assert recipes and {f"afrcnn/{name}" for name in recipes} <= set(names)
    assert "afrcnn/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "docs/"))]
    assert "Project-URL: Paper, https://arxiv.org/abs/1704.03414" in metadata
    page = metadata.partition("\n\n")[2]
    assert page.startswith("# afrcnn") and "docs/data.md has the other" in page
    assert not re.findall(r"\]\((?!https?:|#)|<img src=.docs", page)


def test_the_first_commands_run_from_an_empty_folder_where_the_wheel_is_installed(wheel: Path, tmp_path: Path) -> None:
    environment, work = tmp_path / "environment", tmp_path / "work"
    work.mkdir()
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    install = ("-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index")
    run(sys.executable, *install, wheel, folder=work)
    [packages] = environment.glob("lib/*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))  # PyTorch and the others
    clean = ("env", "-u", "PYTHONPATH", "OMP_NUM_THREADS=1")
    assert run(*clean, environment / "bin" / "afrcnn", "--version", folder=work).startswith("afrcnn ")
    run(*clean, python, "-c", COMMANDS.replace("PREFIX", repr(str(environment))), folder=work)
