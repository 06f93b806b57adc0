"""The archives of published datasets: where they are, and what they are recognised by.

Every archive has a checksum from a public record, so that a mirror needs no trust. VOC's addresses and MD5 are those of
``torchvision.datasets.voc``. COCO publishes no checksums: its sizes and SHA-256 are those that TensorFlow Datasets
recorded (``url_checksums/coco.txt``), as are VOC's sizes (``url_checksums/voc.txt``). Address and MD5 of the selective
search are those of Fast R-CNN's ``fetch_selective_search_data.sh``, which says no size.

Left out for want of a public checksum: VOC 2007's development kit, MATLAB code that nothing here runs.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from rich.filesize import decimal

from afrcnn.core.errors import UserError


@dataclass(frozen=True)
class Archive:
    """A file that a server has.

    Attributes:
        url: its address.
        checksum: algorithm and hexadecimal digest, as ``md5:c52e...``.
        size: its length in bytes; None where no record says it.
        split: the split that its images make; None where it has no images.
    """

    url: str
    checksum: str
    size: int | None = None
    split: str | None = None

    @property
    def name(self) -> str:
        """The name of its file, here and on a mirror."""
        return PurePosixPath(urlsplit(self.url).path).name


@dataclass(frozen=True)
class Source:
    """The archives that make a dataset.

    Attributes:
        root: what other commands take, relative to the folder that the archives are unpacked in.
        archives: the archives by what they are called on the command line.
        note: what no archive holds, and where that is.
    """

    root: str
    archives: dict[str, Archive]
    note: str = ""


_VOC = "https://thor.robots.ox.ac.uk/pascal/VOC"
_COCO = "http://images.cocodataset.org"  # its certificate for https is another host's
_PROPOSALS = "https://dl.dropboxusercontent.com/s/orrt7o6bp6ae0tc/selective_search_data.tgz"

SOURCES = {
    "voc2007": Source(
        "VOCdevkit/VOC2007",
        {
            "trainval": Archive(
                f"{_VOC}/voc2007/VOCtrainval_06-Nov-2007.tar",
                "md5:c52e279531787c972589f7e41ab4ae64",
                460_032_000,
                "trainval",
            ),
            "test": Archive(
                f"{_VOC}/voc2007/VOCtest_06-Nov-2007.tar",
                "md5:b6e924de25625d8de591ea690078ad9f",
                451_020_800,
                "test",
            ),
        },
    ),
    "voc2012": Source(
        "VOCdevkit/VOC2012",
        {
            "trainval": Archive(
                f"{_VOC}/voc2012/VOCtrainval_11-May-2012.tar",
                "md5:6cd6e144f989b92b3379bac3b3de84fd",
                1_999_639_040,
                "trainval",
            ),
        },
        note="VOC 2012's test images are at the VOC evaluation server, behind a login: fetch them there by hand",
    ),
    "coco2014": Source(
        "",
        {
            "train": Archive(
                f"{_COCO}/zips/train2014.zip",
                "sha256:ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
                13_510_573_713,
                "train2014",
            ),
            "val": Archive(
                f"{_COCO}/zips/val2014.zip",
                "sha256:fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
                6_645_013_297,
                "val2014",
            ),
            "annotations": Archive(
                f"{_COCO}/annotations/annotations_trainval2014.zip",
                "sha256:031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
                252_872_794,
            ),
        },
        note="`afrcnn minival` makes trainval35k and minival; the annotations of coco2017 list their images",
    ),
    "coco2017": Source(
        "",
        {
            "train": Archive(
                f"{_COCO}/zips/train2017.zip",
                "sha256:69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
                19_336_861_798,
                "train2017",
            ),
            "val": Archive(
                f"{_COCO}/zips/val2017.zip",
                "sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
                815_585_330,
                "val2017",
            ),
            "annotations": Archive(
                f"{_COCO}/annotations/annotations_trainval2017.zip",
                "sha256:113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
                252_907_541,
            ),
        },
    ),
    "selective-search": Source(
        "selective_search_data",
        {"proposals": Archive(_PROPOSALS, "md5:7078c1db87a7851b31966b96774cd9b9")},
    ),
}


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Refuse a folder on a disk with too little space.

    Args:
        folder: the folder, which exists.
        needed: how many bytes are to be written.
        purpose: what they are needed for, as ``"to unpack it"``.

    Raises:
        UserError: fewer bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        problem = f"{decimal(needed)} {purpose} are needed, but {decimal(free)} are free"
        raise UserError(problem, file=folder, fix="free some space or choose a folder on another disk")
