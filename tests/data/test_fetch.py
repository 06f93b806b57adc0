"""Fetching an archive from servers that fail in every way."""

import hashlib
import shutil
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from afrcnn.core.errors import UserError
from afrcnn.data import fetch as module
from afrcnn.data.archives import Archive
from afrcnn.data.fetch import fetch

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def archive(server):
    server.files["set.tar"] = CONTENT
    return Archive(f"{server.url}/set.tar", SHA256, len(CONTENT))


@pytest.fixture
def unmeasured(archive):
    """The archive, of which no record says the size."""
    return Archive(archive.url, archive.checksum)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", ["archive", "unmeasured"])
def test_a_file_arrives_as_the_server_has_it(kind, request, tmp_path):
    assert fetch(request.getfixturevalue(kind), tmp_path).read_bytes() == CONTENT
    assert names(tmp_path) == ["set.tar"]


def test_an_md5_serves_as_checksum(archive, tmp_path):
    fetch(Archive(archive.url, f"md5:{hashlib.md5(CONTENT).hexdigest()}"), tmp_path)


def test_a_file_that_is_there_is_not_fetched_again(archive, server, tmp_path):
    fetch(archive, tmp_path)
    fetch(archive, tmp_path)
    assert server.requests == [("set.tar", 0)]


def test_another_file_under_its_name_is_refused_and_not_touched(archive, server, tmp_path):
    (tmp_path / "set.tar").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"set\.tar: is not the published file \(SHA256 .*; remove it"):
        fetch(archive, tmp_path)
    assert (tmp_path / "set.tar").read_bytes() == b"mine"
    assert server.requests == []


@pytest.mark.parametrize("kind", ["archive", "unmeasured"])
def test_a_server_that_breaks_off_is_asked_for_the_rest(kind, request, server, tmp_path):
    server.break_after = 1_400_000
    assert fetch(request.getfixturevalue(kind), tmp_path).read_bytes() == CONTENT
    assert server.requests == [("set.tar", start) for start in (0, 1_400_000, 2_800_000)]


@pytest.mark.parametrize("kind", ["archive", "unmeasured"])
def test_a_server_that_fell_silent_is_refused_and_the_next_call_goes_on(kind, request, server, tmp_path):
    archive = request.getfixturevalue(kind)
    (tmp_path / "set.tar.part").write_bytes(CONTENT[:1_000_000])
    server.break_after = 0
    with pytest.raises(
        UserError, match=r"set\.tar: broke off after 1\.0 MB of 3\.0 MB; run the command again to go on"
    ):
        fetch(archive, tmp_path)
    assert names(tmp_path) == ["set.tar.part"]
    server.break_after = None
    assert fetch(archive, tmp_path).read_bytes() == CONTENT
    assert server.requests == [("set.tar", 1_000_000)] * 2


def test_a_server_that_hangs_is_asked_for_the_rest(archive, server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_TIMEOUT", 0.2)
    server.break_after, server.pause = 2_000_000, threading.Event()
    assert fetch(archive, tmp_path).read_bytes() == CONTENT
    server.pause.set()
    # Less than a block may be lost when the connection is given up.
    assert [start // 10**6 for _, start in server.requests] == [0, 1]


def test_a_server_may_send_elsewhere(archive, server, tmp_path):
    (tmp_path / "set.tar.part").write_bytes(CONTENT[:1_000_000])
    assert fetch(archive, tmp_path, f"{server.url}/moved").read_bytes() == CONTENT
    assert server.requests == [("set.tar", 1_000_000)]


def test_a_server_without_ranges_begins_anew(archive, server, tmp_path):
    (tmp_path / "set.tar.part").write_bytes(b"x" * 1_000_000)
    server.ranges = False
    assert fetch(archive, tmp_path).read_bytes() == CONTENT


def test_a_server_without_ranges_that_always_breaks_off_is_not_asked_forever(archive, server, tmp_path):
    server.ranges, server.break_after = False, 1_000_000
    with pytest.raises(UserError, match=r"broke off after 1\.0 MB of 3\.0 MB"):
        fetch(archive, tmp_path)
    assert len(server.requests) == 2


def test_beginning_anew_leaves_nothing_of_what_was_there(archive, server, tmp_path):
    (tmp_path / "set.tar.part").write_bytes(b"x" * 2_000_000)
    server.ranges, server.break_after = False, 1_000_000
    with pytest.raises(UserError, match=r"broke off after 1\.0 MB of 3\.0 MB"):
        fetch(archive, tmp_path)
    assert (tmp_path / "set.tar.part").read_bytes() == CONTENT[:1_000_000]


@pytest.mark.parametrize("added", [-1_000_000, 1_000_000])
def test_a_length_other_than_the_archive_s_is_refused_before_anything_is_written(added, archive, server, tmp_path):
    server.added_length = added
    with pytest.raises(UserError, match=rf"the server's file has {3_000_000 + added} bytes, not 3000000; name another"):
        fetch(archive, tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("added", "problem"),
    [(-1_000_000, r"is not the published file"), (1_000_000, r"name another server with --mirror")],
)
def test_a_lie_about_an_unknown_length_never_counts_as_the_file(added, problem, unmeasured, server, tmp_path):
    server.added_length, server.files["set.tar"] = added, CONTENT[:-1] if added > 0 else CONTENT
    with pytest.raises(UserError, match=problem):
        fetch(unmeasured, tmp_path)
    assert "set.tar" not in names(tmp_path)


def test_a_server_that_says_no_length_is_believed_only_where_it_is_known(archive, unmeasured, server, tmp_path):
    server.added_length = None
    with pytest.raises(UserError, match="the server's file has an unknown number of bytes"):
        fetch(unmeasured, tmp_path)
    assert fetch(archive, tmp_path).read_bytes() == CONTENT


def test_no_more_is_read_than_the_archive_has(archive, server, tmp_path):
    server.added_length, server.files["set.tar"] = None, CONTENT + b"x" * 1_000_000
    assert fetch(archive, tmp_path).read_bytes() == CONTENT


def test_another_range_than_asked_for_is_refused(archive, server, tmp_path):
    (tmp_path / "set.tar.part").write_bytes(CONTENT[:1_000_000])
    server.shift = 5
    with pytest.raises(UserError, match="the server sends another part than that from byte 1000000 on"):
        fetch(archive, tmp_path)
    assert (tmp_path / "set.tar.part").read_bytes() == CONTENT[:1_000_000]


@pytest.mark.parametrize("start", [0, 1_000_000])
def test_a_wrong_checksum_is_refused_and_the_next_call_begins_anew(start, archive, server, tmp_path):
    (tmp_path / "set.tar.part").write_bytes(CONTENT[:start])
    server.files["set.tar"] = CONTENT[:-1] + b"x"
    with pytest.raises(UserError, match=r"is not the published file .*it is removed: run the command again"):
        fetch(archive, tmp_path)
    assert names(tmp_path) == []
    server.files["set.tar"] = CONTENT
    assert fetch(archive, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("kind", ["archive", "unmeasured"])
def test_a_partial_file_that_is_whole_is_verified(kind, request, tmp_path):
    (tmp_path / "set.tar.part").write_bytes(CONTENT)
    assert fetch(request.getfixturevalue(kind), tmp_path).read_bytes() == CONTENT
    assert names(tmp_path) == ["set.tar"]


def test_a_partial_file_that_is_too_long_is_not_the_archive_s(archive, tmp_path):
    (tmp_path / "set.tar.part").write_bytes(CONTENT + b"x")
    assert fetch(archive, tmp_path).read_bytes() == CONTENT


def test_a_missing_file_and_a_missing_server_are_the_user_s_errors(archive, server, tmp_path):
    del server.files["set.tar"]
    with pytest.raises(UserError, match=r"/set\.tar: the server answers 404 \(Not Found\); name another server"):
        fetch(archive, tmp_path)
    with pytest.raises(UserError, match=r"the server cannot be reached \(.*refused.*check the connection"):
        fetch(archive, tmp_path, "http://127.0.0.1:9")
    assert names(tmp_path) == []


def test_a_mirror_has_the_file_under_its_name(archive, server, tmp_path):
    elsewhere = Archive("http://127.0.0.1:9/nowhere/set.tar?dl=1", archive.checksum, archive.size)
    assert fetch(elsewhere, tmp_path, f"{server.url}/voc/").read_bytes() == CONTENT


@pytest.mark.parametrize("mirror", ["file:///etc", "example.org/voc", "ftp://example.org", "http://", ""])
def test_a_mirror_is_an_address_of_http(mirror, archive, tmp_path):
    with pytest.raises(UserError, match=r"^mirror: .* is not an address of HTTP; give the address of a folder"):
        fetch(archive, tmp_path, mirror)


@pytest.mark.parametrize(("there", "free"), [(0, 5_999_999), (1_000_000, 4_999_999)])
def test_a_disk_without_space_for_archive_and_content_is_refused_before(
    there, free, archive, server, tmp_path, monkeypatch
):
    (tmp_path / "set.tar.part").write_bytes(CONTENT[:there])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(UserError, match=rf"{6 - there // 10**6}\.0 MB to fetch and unpack set\.tar are needed, but"):
        fetch(archive, tmp_path)
    assert (tmp_path / "set.tar.part").stat().st_size == there
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free + 1))
    fetch(archive, tmp_path)
