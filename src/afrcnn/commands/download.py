"""Getting published datasets and proposals."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from afrcnn.core.errors import UserError

if TYPE_CHECKING:
    from afrcnn.data.archives import Archive


def download(
    dataset: Literal["voc2007", "voc2012", "coco2014", "coco2017", "selective-search"],
    folder: Path | str,
    *,
    parts: Sequence[str] = (),
    mirror: str | None = None,
) -> Path:
    """Fetch PASCAL VOC, COCO, or published proposals.

    Fetches the official archives, verifies their checksums, unpacks them and removes them. Interrupted, the same
    command goes on where it was; what is there is not fetched again. An archive that you put into FOLDER yourself is
    used like one that was fetched.

    VOC 2012's test images are not among them: the VOC evaluation server gives them out behind a login.

    Args:
        dataset: voc2007, voc2012, coco2014, coco2017, or selective-search, the proposals for VOC that came with Fast
            R-CNN
        folder: folder to unpack into
        parts: trainval and test of VOC; train, val and annotations of COCO (default: all)
        mirror: address of a folder with the same archives, to fetch them from instead

    Examples:
        afrcnn download voc2007 .
        afrcnn download coco2017 coco --parts val annotations
        afrcnn download selective-search .

    Returns:
        The folder that other commands take.

    Raises:
        UserError: a part or the mirror is not valid, the disk is too small, a server cannot be reached or sends another
            file, an archive is damaged or hostile, or the folder cannot be written.
    """
    from afrcnn.core.atomic import writing
    from afrcnn.data.archives import SOURCES, require_space
    from afrcnn.data.fetch import fetch
    from afrcnn.data.unpack import unpack

    source, folder = SOURCES[dataset], Path(folder)
    for name in parts:
        if name not in source.archives:
            fix = f"choose from {', '.join(source.archives)}" + (f" ({source.note})" if source.note else "")
            raise UserError(f"{name!r} is not a part of {dataset}", field="parts", fix=fix)
    root = folder / source.root
    archives = [source.archives[name] for name in dict.fromkeys(parts or source.archives)]
    missing = [archive for archive in archives if not _is_there(archive, folder, root)]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    # Each archive is removed before the next one is fetched. JPEGs do not shrink: unpacked, they take as much again.
    sizes = [archive.size or 0 for archive in missing]
    begun = sum(file.stat().st_size for archive in missing for file in _begun(archive, folder))
    require_space(folder, sum(sizes) + max(sizes, default=0) - begun, f"to fetch and unpack {dataset}")
    for archive in missing:
        unpack(fetch(archive, folder, mirror), folder)
    return root


def show(root: Path, *, dataset: str, parts: Sequence[str] = ()) -> None:
    """Print where the dataset is, and what comes next."""
    from afrcnn.core.terminal import say
    from afrcnn.data.archives import SOURCES

    source = SOURCES[dataset]
    splits = [archive.split for name, archive in source.archives.items() if archive.split and name in (parts or [name])]
    say(f"dataset: {root}")
    if source.note:
        say(f"note:    {source.note}")
    if splits:
        say(f"next:    afrcnn proposals {shlex.join([str(root), '--split', *splits])}")
    elif dataset == "selective-search":
        files = [str(root / f"voc_2007_{split}.mat") for split in ("trainval", "test")]
        say(f"next:    afrcnn proposals VOCdevkit/VOC2007 --split trainval test --import {shlex.join(files)}")


def _begun(archive: Archive, folder: Path) -> list[Path]:
    """Return the files of an archive that is fetched, or in part."""
    return [file for file in (folder / archive.name, folder / f"{archive.name}.part") if file.is_file()]


def _is_there(archive: Archive, folder: Path, root: Path) -> bool:
    """Tell whether the files of an archive are there, from this command or another source."""
    from afrcnn.data.unpack import is_unpacked

    if is_unpacked(archive.name, folder):
        return True
    if archive.split and root.is_dir() and not _begun(archive, folder):
        from afrcnn.data.layouts import open_dataset

        with suppress(UserError):
            open_dataset(root, archive.split)
            return True
    return False
