"""Atomic writing: the whole file or the one before, and nothing else."""

import os
import stat
from pathlib import Path

import pytest

from afrcnn.core.atomic import atomic_write, remove_parts
from afrcnn.core.errors import UserError


@pytest.mark.parametrize(("mode", "content"), [("w", "größer\n"), ("wb", b"\x00\xff\r\n")])
def test_a_file_is_written_with_its_folders(mode, content, tmp_path):
    file = tmp_path / "a" / "b" / "file"
    with atomic_write(file, mode) as stream:
        stream.write(content)
        assert not file.exists()
    assert file.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert [path.name for path in file.parent.iterdir()] == ["file"]


def test_a_library_may_write_by_the_name_of_the_temporary_file(tmp_path):
    with atomic_write(tmp_path / "file", "wb") as stream:
        Path(stream.name).write_bytes(b"by name")
        assert not (tmp_path / "file").exists()
    assert (tmp_path / "file").read_bytes() == b"by name"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [ValueError("of the program"), KeyboardInterrupt()])
def test_an_error_in_between_keeps_the_file_and_stays_what_it_is(error, tmp_path):
    file = tmp_path / "file"
    file.write_text("before")
    with pytest.raises(type(error)), atomic_write(file) as stream:
        stream.write("half")
        raise error
    assert file.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_cannot_be_written_is_the_user_s_error(tmp_path):
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "below", tmp_path / "folder"):
        with pytest.raises(UserError, match="cannot be written") as caught, atomic_write(path) as stream:
            stream.write("x")
        assert str(path) in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_file_has_the_permissions_of_any_other(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "ours") as stream:
            stream.write("x")
        (tmp_path / "plain").write_text("x")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "plain")}
    assert modes == {0o640}


def test_remains_of_a_file_are_removed_and_of_no_other(tmp_path):
    kept = ["a[1].pt", ".a.pt.x.part", ".a1.pt.x.part", "a[1].pt.part", ".a[1].pt.x.parts"]
    for name in [*kept, ".a[1].pt.k2_9.part"]:
        (tmp_path / name).write_text("")
    remove_parts(tmp_path / "a[1].pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
