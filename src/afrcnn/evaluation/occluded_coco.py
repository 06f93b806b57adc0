"""Separated COCO and Occluded COCO: objects whose masks show that something hides a part of them.

Reference: Zhan, Xie, Zisserman, A Tri-Layer Plugin to Improve Occluded Detection, BMVC 2022. An object is *separated*
if what hides it cuts its visible mask into parts, and *occluded* if it is partly hidden but its mask is in one piece.
The authors publish a list of 3522 separated and one of 5550 occluded objects of COCO's val2017, ``separated_coco.pkl``
and ``occluded_coco.pkl``, and count how many of them a detector recalls. ``read_list`` reads these lists;
``derive_subsets`` makes such subsets from the masks of any dataset in COCO layout.

What COCO's annotations tell, and what not: the parts of a mask can be counted, so the separated objects are derived
almost as defined (with those that are in parts for another reason, such as things in a heap labelled as one object).
Who is in front of whom is not annotated, neither is the whole shape of a hidden object, and only objects of the
annotated classes can be known to hide others. The authors' list of occluded objects rests on a network that completes
masks; here a geometric rule takes its place. Recall on derived subsets is therefore not comparable with published
numbers; on the lists it is, but for masks: the published recalls are by masks, ours by boxes.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import ijson
import numpy as np
import numpy.typing as npt
import torch
from faster_coco_eval.core import mask as coco_mask
from torch import Tensor
from torchvision.ops import box_iou

from afrcnn.core.errors import UserError
from afrcnn.data.segmentation import read_run_lengths
from afrcnn.data.target import DetectionDataset

_PART = 0.01
"""The fraction of a mask that a part of it must have: polygons drawn on pixels leave smaller crumbs behind, of a pixel
or two."""

_OCCLUDED = 0.05
"""The fraction of its mask's convex hull that another object must take from an occluded one."""

_Masks = npt.NDArray[np.uint8]


def derive_subsets(dataset: DetectionDataset) -> dict[str, list[Tensor]]:
    """Derive the separated and the occluded objects of a split from its masks.

    ``separated`` are the objects whose mask falls into two or more parts: sets of pixels that touch each other, also
    by a corner, and hold at least 1% of the mask.

    ``occluded in one piece`` are the other objects of which another one seems to hide a part: its mask touches or
    overlaps theirs, and covers more than 5% of the convex hull of their mask, a larger fraction than theirs covers of
    its own hull. This is the order by convex hulls, after which convex objects are whole and the object with
    the dent is behind. It overlooks what is cut straight or hidden by something that is not annotated, and takes
    objects that are bent around others, such as an arm around a ball, for occluded by these. On 100 images of COCO
    it finds 208 of 842 objects, more than the 15% of val2017's that the authors list, and 59 separated ones, 7%, where
    they list 10%.

    Crowd regions, and annotations without a mask, are in neither subset and hide nobody.

    Args:
        dataset: the split; its masks are read from its annotation file once more.

    Returns:
        For each of the two, for each image, M flags, bool; nothing for a split without masks.

    Raises:
        UserError: a mask is malformed.
    """
    assert dataset.annotation_file is not None
    masks = _read_masks(dataset.annotation_file)
    if not masks:
        return {}
    members: dict[str, list[Tensor]] = {"separated": [], "occluded in one piece": []}
    for index in range(len(dataset)):
        target, size = dataset.target(index), dataset.image_size(index)
        ids = target["annotation_id"].tolist()
        rows = [row for row, id_ in enumerate(ids) if id_ in masks and not target["iscrowd"][row]]
        pixels = [_decode(masks[ids[row]], size, dataset.annotation_file, ids[row]) for row in rows]
        separated, occluded = np.zeros((2, len(ids)), dtype=np.bool_)
        separated[rows] = [_count_parts(mask) > 1 for mask in pixels]
        occluded[rows] = _occluded_by_hull(np.array(pixels).reshape(-1, *size))
        for flags, name in zip((separated, occluded & ~separated), members, strict=True):
            members[name].append(torch.from_numpy(flags))
    return members


def _count_parts(mask: _Masks) -> int:
    """Return the number of parts of a mask (H x W, 0 or 1): 8-connected, each at least 1% of its pixels."""
    _, _, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = statistics[1:, cv2.CC_STAT_AREA]  # the first is the background
    return int(np.count_nonzero(areas >= _PART * areas.sum()))


def _occluded_by_hull(masks: _Masks) -> npt.NDArray[np.bool_]:
    """Tell which of an image's objects another one seems to hide a part of, by the order of convex hulls.

    Args:
        masks: N x H x W, 0 or 1.

    Returns:
        N flags.
    """
    touching = np.zeros((len(masks), len(masks)), dtype=np.bool_)
    covered = np.zeros((len(masks), len(masks)))  # the fraction of each one's hull by each other
    for row, mask in enumerate(masks):
        x, y, width, height = cv2.boundingRect(mask)
        window = np.s_[max(y - 1, 0) : y + height + 1, max(x - 1, 0) : x + width + 1]
        inside, all_masks = np.ascontiguousarray(mask[window]), masks[:, *window]
        hull = _convex_hull(inside)
        grown = cv2.dilate(inside, np.ones((3, 3), dtype=np.uint8)).astype(np.uint8)
        touching[row] = (all_masks & grown).any(axis=(1, 2))
        covered[row] = np.count_nonzero(all_masks & hull & (1 - inside), axis=(1, 2)) / max(np.count_nonzero(hull), 1)
    return np.asarray((touching & (covered > _OCCLUDED) & (covered > covered.T)).any(axis=1))


def _convex_hull(mask: _Masks) -> _Masks:
    """Return the pixels of a mask's convex hull, H x W, 0 or 1."""
    hull = np.zeros(mask.shape, dtype=np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if contours:
        cv2.fillConvexPoly(hull, cv2.convexHull(np.concatenate(contours)), 1)
    return hull


def _read_masks(path: Path) -> dict[int, Any]:
    """Return the segmentations of a split by their annotations' ids; crowds, and what has none, are left out."""
    with path.open("rb") as file:
        return {
            annotation["id"]: annotation["segmentation"]
            for annotation in ijson.items(file, "annotations.item", use_float=True)
            if annotation.get("segmentation") and not annotation.get("iscrowd")
        }


def _decode(segmentation: Any, size: tuple[int, int], file: Path, id_: int) -> _Masks:
    """Return a mask's pixels, H x W, 0 or 1, of polygons or a run-length encoding."""
    height, width = size
    try:
        if isinstance(segmentation, dict):
            read_run_lengths(segmentation, size)  # refuses those of another size before any pixel is written
        else:
            segmentation = [_clip(np.asarray(polygon, dtype=np.float64), size) for polygon in segmentation]
            segmentation = [polygon for polygon in segmentation if polygon]
        if not segmentation:
            return np.zeros(size, dtype=np.uint8)
        mask: _Masks = np.ascontiguousarray(coco_mask.decode(coco_mask.segmToRle(segmentation, width, height)))
        if mask.shape != size:
            raise ValueError(f"{mask.shape[1]} x {mask.shape[0]} pixels in an image of {width} x {height}")
    except (RuntimeError, TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
        field = f"annotations[id={id_}].segmentation"
        raise UserError(f"is not a valid mask ({error})", file=file, field=field, fix="correct the file") from error
    return mask


def _clip(polygon: npt.NDArray[np.float64], size: tuple[int, int]) -> list[float]:
    """Return a polygon (x1, y1, x2, y2, ...) cut off where it is further from its image than that is large.

    COCO's tools walk along its outline, so that a corner at 1e7 takes gigabytes. Polygons that keep near the image, as
    all published ones do, stay as they are, to the bit.

    Raises:
        ValueError: it is not a list of pairs of finite numbers.
    """
    if polygon.ndim != 1 or polygon.size % 2 or not np.isfinite(polygon).all():
        raise ValueError("a polygon is not a list of x, y, x, y, ...")
    height, width = size
    corners = polygon.reshape(-1, 2)
    for axis, low, high in ((0, -width, 2 * width), (1, -height, 2 * height)):
        for sign, limit in ((1.0, high), (-1.0, -low)):  # keep what is below the limit
            distance = limit - sign * corners[:, axis]
            if (distance >= 0).all():
                continue
            kept = list[npt.NDArray[np.float64]]()
            for index, corner in enumerate(corners):
                inside, was_inside = distance[index] >= 0, distance[index - 1] >= 0
                if inside != was_inside:  # from the one that is inside on, for the other may be at 1e308
                    near, far = (index, index - 1) if inside else (index - 1, index)
                    at = distance[near] / (distance[near] - distance[far])
                    kept.append(corners[near] * (1 - at) + corners[far] * at)
                if inside:
                    kept.append(corner)
            corners = np.array(kept, dtype=np.float64).reshape(-1, 2)
    return corners.flatten().tolist() if len(corners) > 2 or corners.size == polygon.size else []


def read_list(path: Path | str, dataset: DetectionDataset) -> list[Tensor]:
    """Read a published list, ``separated_coco.pkl`` or ``occluded_coco.pkl``.

    The file is a pickle of a list; an entry holds the name of the image's file, the name of the class, a number, a box,
    and the object's mask, run-length encoded, perhaps more. Reading runs no code of the file: whatever class or
    function it names becomes an inert object. An entry stands for the object of its class and image whose box overlaps
    most with its mask's, for the two lists write boxes in two ways. Entries of images that are not in the split are
    passed over.

    Args:
        path: the file.
        dataset: the split, of COCO's val2017.

    Returns:
        For each image of the split, M flags, bool.

    Raises:
        UserError: the file is missing or malformed, or no object of the dataset is where an entry says.
    """
    members = [torch.zeros(len(dataset.target(index)["labels"]), dtype=torch.bool) for index in range(len(dataset))]
    indices = {dataset.image_path(index).name: index for index in range(len(dataset))}
    labels = {name: label for label, name in enumerate(dataset.classes, start=1)}
    for number, entry in enumerate(_unpickle(Path(path))):
        name, class_name, box = _parse(entry, Path(path), number)
        if name not in indices:
            continue
        target = dataset.target(indices[name])
        candidates = torch.nonzero((target["labels"] == labels.get(class_name, 0)) & ~target["iscrowd"]).flatten()
        iou = box_iou(box, target["boxes"].as_subclass(Tensor)[candidates].double()).flatten()
        if not len(iou) or iou.max() <= 0.5:
            problem = f"no {class_name} of {dataset.annotation_file} is where the mask is in {name}"
            fix = "give the list that was made for this split"
            raise UserError(problem, file=path, field=f"[{number}]", fix=fix)
        members[indices[name]][candidates[iou.argmax()]] = True
    if not any(flags.any() for flags in members):
        raise UserError("lists no object of the split's images", file=path, fix="evaluate on COCO's val2017")
    return members


class _Inert:
    """What classes and functions that a pickle names become: an object that does nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    __setstate__ = __init__


class _Unpickler(pickle.Unpickler):
    """Reads lists, mappings, text and numbers, and runs nothing that the file names."""

    def find_class(self, module: str, name: str) -> Any:
        # Pickles of Python 2's protocol hold bytes as text in Latin-1, to be encoded.
        return (lambda text, _: text.encode("latin-1")) if (module, name) == ("_codecs", "encode") else _Inert


def _unpickle(path: Path) -> list[Any]:
    fix = "give separated_coco.pkl or occluded_coco.pkl of Zhan et al."
    try:
        content = _Unpickler(BytesIO(path.read_bytes())).load()
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", file=path, fix=fix) from error
    except Exception as error:  # damaged pickles raise whatever the read happens upon
        raise UserError(f"is not a list of objects ({error})", file=path, fix=fix) from error
    if not isinstance(content, list):
        raise UserError(f"is not a list of objects, but {type(content)}", file=path, fix=fix)
    return content


def _parse(entry: Any, path: Path, number: int) -> tuple[str, str, Tensor]:
    """Return an entry's image, class, and the box around its mask (1 x 4, XYXY in pixels)."""
    try:
        name, class_name, _, _, mask = entry[:5]
        if not (isinstance(name, str) and isinstance(class_name, str) and isinstance(mask, Mapping)):
            raise TypeError("the fields are of other types")
        x, y, width, height = np.ravel(coco_mask.toBbox(dict(mask))).tolist()
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        problem = f"is not an object with the names of image and class, a number, a box and a mask ({error})"
        raise UserError(problem, file=path, field=f"[{number}]", fix="fetch the file again") from error
    return name, class_name, torch.tensor([[x, y, x + width, y + height]], dtype=torch.float64)
