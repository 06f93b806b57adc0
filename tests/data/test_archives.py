"""The table of published archives."""

import re
import shutil
from types import SimpleNamespace
from typing import get_args, get_type_hints

import pytest

from afrcnn.commands.download import download
from afrcnn.core.errors import UserError
from afrcnn.data.archives import SOURCES, require_space

ARCHIVES = [archive for source in SOURCES.values() for archive in source.archives.values()]


def test_voc_is_fetched_from_where_torchvision_fetches_it_with_its_checksums():
    voc = pytest.importorskip("torchvision.datasets.voc").DATASET_YEAR_DICT
    published = {key: (voc[key]["url"], f"md5:{voc[key]['md5']}", voc[key]["base_dir"]) for key in voc}
    for dataset, name, key in (
        ("voc2007", "trainval", "2007"),
        ("voc2007", "test", "2007-test"),
        ("voc2012", "trainval", "2012"),
    ):
        archive = SOURCES[dataset].archives[name]
        assert (archive.url, archive.checksum, SOURCES[dataset].root) == published[key]


def test_the_command_offers_every_dataset_of_the_table():
    hints = get_type_hints(download)
    assert get_args(hints["dataset"]) == tuple(SOURCES)


def test_every_archive_has_a_checksum_and_a_name_of_its_own():
    digits = {"md5": 32, "sha256": 64}
    for archive in ARCHIVES:
        algorithm, _, digest = archive.checksum.partition(":")
        assert re.fullmatch(rf"[0-9a-f]{{{digits[algorithm]}}}", digest), archive
        assert re.search(r"\.(tar|tgz|zip)$", archive.name), archive
    assert len({archive.name for archive in ARCHIVES}) == len({archive.checksum for archive in ARCHIVES}) == 10


def test_a_disk_that_is_too_small_is_refused_with_both_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=20_000_000_000))
    require_space(tmp_path, 20_000_000_000, "to unpack it")
    with pytest.raises(UserError, match=r"38\.7 GB to unpack it are needed, but 20\.0 GB are free; free some space"):
        require_space(tmp_path, 38_673_723_596, "to unpack it")
