from __future__ import annotations

import numpy as np
import pytest

from afrcnn.core.errors import UserError
from afrcnn.proposals.journal import Journal

PURPOSE = {"method": "a", "parameters": {"b": 1}}


def boxes(count: int) -> np.ndarray:
    return np.random.default_rng(count).random((count, 4), np.float32)


def key(number: int) -> bytes:
    return bytes([number] * 16)


@pytest.fixture
def path(tmp_path):
    with Journal(tmp_path / "new folder" / "journal", PURPOSE) as journal:
        for number in (3, 0, 5):
            journal.append(key(number), boxes(number))
    return journal.path


def test_what_was_appended_is_there_when_the_file_is_opened_again(path):
    with Journal(path, PURPOSE) as journal:
        assert key(1) not in journal
        journal.append(key(1), boxes(1))
    with Journal(path, PURPOSE) as journal:
        for number in (5, 0, 1, 3):
            np.testing.assert_array_equal(journal[key(number)], boxes(number))


def test_a_record_torn_anywhere_is_cut_off_and_those_before_it_remain(path):
    whole = path.read_bytes()
    start = len(whole) - 24 - 5 * 16  # of the last record
    for size in range(start, len(whole)):
        path.write_bytes(whole[:size])
        with Journal(path, PURPOSE) as journal:
            assert key(3) in journal
            assert key(0) in journal
            assert key(5) not in journal
            journal.append(key(5), boxes(5))
            np.testing.assert_array_equal(journal[key(5)], boxes(5))
        assert path.read_bytes() == whole


def test_a_record_of_garbage_is_cut_off(path):
    whole = path.read_bytes()
    for byte in range(len(whole) - 24 - 5 * 16, len(whole)):
        damaged = bytearray(whole)
        damaged[byte] ^= 0xFF
        path.write_bytes(damaged)
        with Journal(path, PURPOSE) as journal:
            assert key(5) not in journal
            np.testing.assert_array_equal(journal[key(3)], boxes(3))


def test_a_head_torn_by_a_kill_starts_the_journal_anew(path):
    path.write_bytes(path.read_bytes()[:4])
    with Journal(path, PURPOSE) as journal:
        assert key(3) not in journal
        journal.append(key(3), boxes(3))
    with Journal(path, PURPOSE) as journal:
        assert key(3) in journal


def test_the_journal_of_another_computation_is_named_and_left_alone(path):
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"journal: is the journal of another computation"):
        Journal(path, {"method": "other"})
    assert path.read_bytes() == before


def test_two_processes_that_write_to_one_file_read_their_own_records(path):
    with Journal(path, PURPOSE) as one, Journal(path, PURPOSE) as two:
        one.append(key(7), boxes(7))
        two.append(key(8), boxes(8))
        np.testing.assert_array_equal(one[key(7)], boxes(7))
        np.testing.assert_array_equal(two[key(8)], boxes(8))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Journal(tmp_path / "file" / "journal", PURPOSE)
