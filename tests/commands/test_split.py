"""The command that splits a dataset by occlusion."""

import subprocess
import sys

import pytest

from afrcnn.commands.shapes import shapes
from afrcnn.commands.split import show, split
from afrcnn.core.errors import UserError
from afrcnn.data.layouts import open_dataset


def test_both_splits_are_written_under_the_default_names_and_shown(tmp_path, capsys):
    shapes(tmp_path / "crowd", trainval=30, test=1, size=96)
    splits = split(tmp_path / "crowd", "trainval", out=tmp_path / "new")
    show(splits, dataset=tmp_path / "crowd", out=tmp_path / "new")
    shown = capsys.readouterr().out
    ids = [open_dataset(tmp_path / "new", f"{name}_trainval").ids for name in ("unoccluded", "occluded")]
    assert sorted(ids[0] + ids[1]) == open_dataset(tmp_path / "crowd", "trainval").ids
    assert f"{len(ids[0])} images" in shown
    words = f"{tmp_path}/new --split unoccluded_trainval occluded_trainval"
    assert shown.splitlines()[-1] == f"next: afrcnn proposals {words}"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        split(tmp_path / "nowhere", "trainval")


@pytest.mark.parametrize("command", ["shapes", "split", "proposals"])
def test_a_command_is_imported_without_torch_and_opencv(command):
    program = f"import sys, afrcnn.commands.{command}; print({{'torch', 'cv2', 'torchvision'}} & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "set()"
