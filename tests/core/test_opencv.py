"""Packages of OpenCV that overwrite each other."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("__version__ = '4'", "OpenCV has no module ximgproc"),
        (
            "raise ImportError('libGL.so.1: cannot open shared object file', name='cv2')",
            "OpenCV cannot be imported (lib",
        ),
    ],
)
@pytest.mark.parametrize("command", ["proposals", "predict"])
def test_an_opencv_without_selective_search_is_told_with_what_to_install(command, content, told, run, tmp_path):
    (tmp_path / "cv2.py").write_text(content)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from afrcnn.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    image = f"{run.recipe.data.root}/JPEGImages/test_0.jpg"
    words = {"proposals": [run.recipe.data.root, "--out", str(tmp_path / "out")], "predict": [str(run.folder), image]}
    done = subprocess.run(
        [sys.executable, "-c", code, command, *words[command]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1 and told in done.stderr
    assert "pip install opencv-contrib-python-headless" in done.stderr
