"""The one error of the user: a line with file, field, problem and fix."""

import pickle
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from afrcnn.core.errors import UserError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "is wrong"),
        ({"file": Path("a.xml")}, "a.xml: is wrong"),
        ({"field": "bndbox"}, "bndbox: is wrong"),
        ({"file": "a.xml", "field": "bndbox", "fix": "mend it"}, "a.xml: bndbox: is wrong; mend it"),
        ({"file": "a.xml", "fix": "mend\nit"}, "a.xml: is wrong; mend it"),
    ],
)
def test_the_message_is_one_line_of_what_is_known(arguments, message):
    assert str(UserError("is\n  wrong", **arguments)) == message


def test_it_crosses_processes_whole():
    error = UserError("is wrong", file=Path("a.xml"), field="size", fix="mend it")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert (again.problem, again.file, again.field, again.fix) == ("is wrong", Path("a.xml"), "size", "mend it")


class Broken(Dataset[int]):
    """Images of which none can be read."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        raise UserError("cannot be decoded", file="photo.jpg", fix="replace it")


def test_an_error_in_a_loaders_worker_keeps_its_line():
    with pytest.raises(UserError) as caught:
        list(DataLoader(Broken(), num_workers=1))
    assert str(caught.value) == "photo.jpg: cannot be decoded; replace it"
