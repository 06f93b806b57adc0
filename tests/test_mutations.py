"""Spoiled files: whatever is in them, they are read or refused in one line; `benchmarks/mutations.py` tries more."""

import random
import shutil

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from mutations import READERS, mutate, outcome

NAMES = [reader.name for reader in READERS if reader.name != "boxes.mat"]  # which is read in another process


@pytest.fixture(scope="module")
def wholes(tmp_path_factory):
    """A folder for each kind of file, with a whole one in it."""
    folders = {}
    for reader in READERS:
        folders[reader.name] = tmp_path_factory.mktemp("whole")
        reader.write(folders[reader.name])
    return folders


def copied(whole, folder):
    shutil.rmtree(folder, ignore_errors=True)
    return shutil.copytree(whole, folder)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_whole_file_is_read(reader, wholes, tmp_path):
    assert outcome(reader, copied(wholes[reader.name], tmp_path / "input")) == "read"


@seed(0)
@settings(max_examples=300, deadline=None, database=None)
@given(name=st.sampled_from(NAMES), number=st.integers(0, 2**32))
def test_a_spoiled_file_is_read_or_refused_in_one_line(name, number, wholes, tmp_path_factory):
    [reader] = (reader for reader in READERS if reader.name == name)
    folder = copied(wholes[name], tmp_path_factory.getbasetemp() / "spoiled")
    file = folder / name
    file.write_bytes(mutate(file.read_bytes(), random.Random(number), reader.structured))
    assert outcome(reader, folder) in ("read", "refused")
    assert not list(folder.rglob("*.part"))
