"""Unpacking archives, hostile ones among them."""

import io
import json
import shutil
import tarfile
import zipfile
from types import SimpleNamespace

import pytest

from afrcnn.core.errors import UserError
from afrcnn.data import unpack as module
from afrcnn.data.unpack import is_unpacked, unpack

FILES = {"set/a.jpg": b"a" * 10_000, "set/lists/test.txt": b"a\n", "b.txt": b""}


def write_tar(path, files, *members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            archive.addfile(info)
    return path


def write_tgz(path, files):
    return write_tar(path, files, mode="w:gz")


def write_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


WRITERS = {"set.tar": write_tar, "set.tgz": write_tgz, "set.zip": write_zip}
every_format = pytest.mark.parametrize("name", WRITERS)


@pytest.fixture
def folder(tmp_path):
    """A folder inside another one, which no archive may reach."""
    (tmp_path / "inner").mkdir()
    return tmp_path / "inner"


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(".json")
    }


@every_format
def test_an_archive_becomes_its_files_and_is_removed(name, folder):
    unpack(WRITERS[name](folder / name, FILES), folder)
    assert content(folder) == FILES
    assert {path.name for path in folder.iterdir()} == {"set", "b.txt", f".{name}.json"}


def test_files_and_folders_are_made_with_the_permissions_of_new_ones(folder):
    info = tarfile.TarInfo("tool")
    info.mode, info.uid = 0o6777, 0
    with tarfile.open(folder / "set.tar", "w") as archive:
        archive.addfile(info)
    unpack(folder / "set.tar", folder)
    (folder / "plain").touch()
    assert (folder / "tool").stat().st_mode == (folder / "plain").stat().st_mode


def test_archives_join_in_one_folder_and_others_files_stay(folder):
    (folder / "set/lists").mkdir(parents=True)
    (folder / "set/mine.jpg").write_bytes(b"mine")
    unpack(write_tar(folder / "first.tar", FILES), folder)
    unpack(write_tar(folder / "second.tar", {"set/c.jpg": b"c", "set/a.jpg": b"new"}), folder)
    assert content(folder) == FILES | {"set/mine.jpg": b"mine", "set/c.jpg": b"c", "set/a.jpg": b"new"}


@pytest.mark.parametrize("place", [".", "a/..", "../inner"])
def test_a_folder_may_be_named_in_any_way(place, folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "a").mkdir()
    unpack(write_tar(folder / "set.tar", FILES), type(folder)(place))
    assert content(folder) == FILES


@every_format
def test_what_is_unpacked_is_known_until_a_file_is_lost_or_cut(name, folder):
    assert not is_unpacked(name, folder)
    unpack(WRITERS[name](folder / name, FILES), folder)
    assert is_unpacked(name, folder)
    (folder / "set/a.jpg").write_bytes(b"a")
    assert not is_unpacked(name, folder)
    (folder / "set/a.jpg").unlink()
    assert not is_unpacked(name, folder)


@pytest.mark.parametrize("record", ["", "[]", '{"a": 1}', "\\", '{"\\u0000": 0}'])
def test_a_damaged_record_records_nothing(record, folder):
    (folder / ".set.tar.json").write_text(record)
    assert not is_unpacked("set.tar", folder)


@every_format
@pytest.mark.parametrize("member", ["../outside", "a/../../outside", "{outside}", "..", ".", "a/.."])
def test_a_path_that_leads_out_of_the_folder_is_refused_before_anything_is_written(member, name, folder):
    member = member.format(outside=folder.parent / "outside")
    path = WRITERS[name](folder / name, FILES | {member: b"x"})
    with pytest.raises(UserError, match=r"leads out of the folder; remove the archive, and do not trust"):
        unpack(path, folder)
    assert {entry.name for entry in folder.parent.iterdir()} == {"inner"}
    assert [entry.name for entry in folder.iterdir()] == [name]


@pytest.mark.parametrize(
    ("kind", "link"),
    [
        (tarfile.SYMTYPE, "../outside"),
        (tarfile.SYMTYPE, "set"),
        (tarfile.LNKTYPE, "set/a.jpg"),
        (tarfile.LNKTYPE, "/etc/passwd"),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
)
def test_links_and_devices_are_refused_before_anything_is_written(kind, link, folder):
    path = write_tar(folder / "set.tar", FILES, ("link", kind, link))
    with pytest.raises(UserError, match=r"set\.tar: 'link': is a link or a device"):
        unpack(path, folder)
    assert [entry.name for entry in folder.iterdir()] == ["set.tar"]


def test_a_link_in_a_zip_is_refused(folder):
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(folder / "set.zip", "w") as archive:
        archive.writestr(info, "../outside")
    with pytest.raises(UserError, match=r"'link': is a link or a device"):
        unpack(folder / "set.zip", folder)


@every_format
def test_a_truncated_archive_is_refused_and_leaves_nothing(name, folder):
    path = WRITERS[name](folder / name, {f"{n}.jpg": bytes(range(256)) * 300 for n in range(20)})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"is damaged \(.*remove it and fetch it again"):
        unpack(path, folder)
    assert [entry.name for entry in folder.iterdir()] == [name]


def test_a_byte_that_changed_in_a_zip_is_noticed_by_its_crc(folder):
    path = folder / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", b"content")
    path.write_bytes(path.read_bytes().replace(b"content", b"CONTENT"))
    with pytest.raises(UserError, match=r"is damaged \(Bad CRC-32"):
        unpack(path, folder)
    assert not (folder / "a.txt").exists()


@every_format
def test_something_else_than_an_archive_is_refused(name, folder):
    (folder / name).write_bytes(b"<html>please log in</html>" * 100)
    with pytest.raises(UserError, match="is damaged"):
        unpack(folder / name, folder)


@every_format
def test_more_than_the_disk_can_hold_is_refused_before_anything_is_written(name, folder, monkeypatch):
    path = WRITERS[name](folder / name, {"bomb": bytes(50_000_000)})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=49_999_999))
    with pytest.raises(UserError, match=rf"50\.0 MB to unpack {name} are needed, but 50\.0 MB are free"):
        unpack(path, folder)
    assert [entry.name for entry in folder.iterdir()] == [name]


def test_a_zip_that_understates_its_size_writes_no_more_than_it_says(folder, monkeypatch):
    path = write_zip(folder / "set.zip", {"bomb": bytes(1_000_000)})
    path.write_bytes(path.read_bytes().replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    written = []
    copy = shutil.copyfileobj
    monkeypatch.setattr(shutil, "copyfileobj", lambda *args: (copy(*args), written.append(args[1].tell())))
    with pytest.raises(UserError, match="is damaged"):
        unpack(path, folder)
    assert sum(written) <= 10


@pytest.mark.parametrize("stage", ["_write", "_move", "_record"])
def test_unpacking_that_was_killed_is_done_anew(stage, folder, monkeypatch):
    path = write_tar(folder / "set.tar", FILES)
    original, calls = getattr(module, stage), []

    def killed(*args):
        calls.append(args)
        if len(calls) == (2 if stage != "_record" else 1):
            raise KeyboardInterrupt
        return original(*args)

    # As after a power cut: nobody removes the temporary folder.
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        (folder / "set").mkdir()
        patch.setattr(module, stage, killed)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        unpack(path, folder)
    assert path.is_file()
    assert not is_unpacked("set.tar", folder)
    unpack(path, folder)
    assert content(folder) == FILES
    assert is_unpacked("set.tar", folder)


def test_lists_of_images_come_after_the_images(folder, monkeypatch):
    path = write_tar(folder / "set.tar", {"VOC/ImageSets/test.txt": b"a", "VOC/JPEGImages/a.jpg": b"a", "VOC/Z": b""})
    (folder / "VOC").mkdir()
    moved = []
    replace = type(path).replace
    monkeypatch.setattr(type(path), "replace", lambda self, place: (moved.append(self.name), replace(self, place))[1])
    unpack(path, folder)
    assert moved.index("ImageSets") > max(moved.index("JPEGImages"), moved.index("Z"))


def test_a_folder_that_cannot_be_written_is_the_user_s_error(folder):
    path = write_tar(folder / "set.tar", {"a": b"x", "a/b": b"x"})
    with pytest.raises(UserError, match="cannot be written"):
        unpack(path, folder)
    assert [entry.name for entry in folder.iterdir()] == ["set.tar"]


def test_a_record_lists_what_came_from_the_archive(folder):
    unpack(write_tar(folder / "set.tar", FILES), folder)
    assert json.loads((folder / ".set.tar.json").read_text()) == {name: len(text) for name, text in FILES.items()}
