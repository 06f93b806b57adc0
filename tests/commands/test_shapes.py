"""The command that draws a dataset."""

import pytest

from afrcnn.commands.shapes import shapes, show
from afrcnn.core.errors import UserError
from afrcnn.data.layouts import open_dataset


def test_a_drawn_dataset_opens_and_the_next_command_is_shown(tmp_path, capsys):
    show(shapes(tmp_path / "my set", trainval=2, test=1, size=64), folder=tmp_path / "my set")
    assert len(open_dataset(tmp_path / "my set", "trainval")) == 2
    shown = capsys.readouterr().out.splitlines()
    assert shown == [f"dataset: {tmp_path}/my set", f"next:    afrcnn proposals '{tmp_path}/my set'"]


def test_a_mistake_names_the_option(tmp_path):
    with pytest.raises(UserError, match=r"^occlusion: 2 is out of range"):
        shapes(tmp_path / "set", occlusion=2)
