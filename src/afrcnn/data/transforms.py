"""Hiding objects in images: what is done in image space to the end that adversaries pursue in feature space.

Each transform is called with a training sample (image, target), and draws from the global generator, which the sample
sequence sets for each of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.ops import box_iou, clip_boxes_to_image, remove_small_boxes
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from afrcnn.data.target import Target

if TYPE_CHECKING:
    from _typeshed import SupportsLenAndGetItem

_MEAN_COLOUR = (124, 116, 104)
"""ImageNet's mean colour, which normalisation turns into 0."""

_LARGEST_OCCLUSION = 0.7
"""An object of which pasted objects occlude more is no longer labelled."""

_SMALLEST_IOU = 0.1
"""Proposals of a pasted object are those that overlap it at least so much: all that can be trained on with it, as
foreground or as background (Fast R-CNN, section 2.3)."""


class RandomErasing(nn.Module):
    """Erases one rectangle of the image, wherever it falls (Zhong et al. 2020, arXiv:1708.04896).

    It is torchvision's transform with its defaults: 2 to 33% of the image, sides up to 3.3 to 1, with what is 0 after
    normalisation. Boxes and proposals stay.

    Args:
        p: the probability that an image loses a rectangle, in [0, 1].
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.erase = v2.RandomErasing(p, value=_MEAN_COLOUR)

    def forward(self, image: tv_tensors.Image, target: Target) -> tuple[tv_tensors.Image, Target]:
        """Return the image (3 x H x W, uint8) with a rectangle erased, and its target."""
        return self.erase(image), target


class CutOut(nn.Module):
    """Hides a part of every object under a rectangle of the mean colour (cut-out, DeVries and Taylor 2017, by object).

    The rectangle has the shape of the object's box, and lies anywhere in it. Boxes and proposals stay. Where boxes
    overlap, the rectangle of one may hide more of another.

    Args:
        fraction: the fraction of each box's area that its rectangle has, in [0, 1], to the nearest row of pixels.
    """

    def __init__(self, fraction: float = 1 / 3) -> None:
        super().__init__()
        self.fraction = fraction

    def forward(self, image: tv_tensors.Image, target: Target) -> tuple[tv_tensors.Image, Target]:
        """Return the image (3 x H x W, uint8) with every object partly hidden, and its target."""
        pixels = image.as_subclass(Tensor).clone()
        colour = torch.tensor(_MEAN_COLOUR, dtype=pixels.dtype)[:, None, None]
        boxes = target["boxes"].as_subclass(Tensor)
        for (x1, y1, x2, y2), pixel_box in zip(boxes.tolist(), _whole_pixels(boxes).tolist(), strict=True):
            left, top, right, bottom = pixel_box
            width = max(1, round(self.fraction**0.5 * (x2 - x1)))
            height = min(round(self.fraction * (x2 - x1) * (y2 - y1) / width), bottom - top)
            x, y = _integer(left, right - width), _integer(top, bottom - height)
            pixels[:, y : y + height, x : x + width] = colour
        return tv_tensors.wrap(pixels, like=image), target


class CopyPaste(nn.Module):
    """Occludes a part of every object by an object of another training image (copy-paste).

    After Ghiasi et al. 2021 (arXiv:2012.07177), but aimed at objects, and by boxes, which is what all datasets have.
    One other image is drawn; every object of this image gets an object of that one, cut out by its box, scaled to as
    large an area, and pasted with its centre on the outline of the object's box. So each occludes at most half of
    the object that it is pasted for, and if it has the same shape at least a quarter, 3/8 in the mean; other pasted
    objects may occlude more of it.

    What was pasted is labelled as well, with the box of what lies in the image, and brings the proposals around it from
    its own image, moved along and clipped; of the image, all proposals stay. Objects, pasted ones too, of which pasted
    ones occlude more than ``_LARGEST_OCCLUSION`` lose their label. Of the target, ``boxes``, ``labels``, ``image_id``
    and ``proposals`` remain: what else it said of the objects is no longer true. Without objects in both images,
    nothing happens.

    Args:
        samples: the training set that other images are drawn from.
        mirrored: the probability that the other image is mirrored, in [0, 1].
    """

    def __init__(self, samples: SupportsLenAndGetItem[tuple[tv_tensors.Image, Target]], mirrored: float = 0.5) -> None:
        super().__init__()
        self.samples = samples
        self.mirror = v2.RandomHorizontalFlip(mirrored)

    def forward(self, image: tv_tensors.Image, target: Target) -> tuple[tv_tensors.Image, Target]:
        """Return the image (3 x H x W, uint8) with objects pasted over its own, and the target of what it now shows."""
        other, source = self.mirror(*self._other_sample(target["image_id"]))
        objects: Tensor = target["boxes"].as_subclass(Tensor)
        if not (len(objects) and len(source["boxes"])):
            return image, target

        size = (image.shape[-2], image.shape[-1])
        drawn = torch.randint(len(source["boxes"]), (len(objects),))
        cut_outs = _whole_pixels(source["boxes"][drawn])
        places = torch.stack([_beside(*pair) for pair in zip(objects, cut_outs, strict=True)])
        visible = clip_boxes_to_image(places, size)
        pixels, owner = image.as_subclass(Tensor).clone(), torch.zeros(size, dtype=torch.int64)
        for number, corners in enumerate(torch.stack([cut_outs, places, visible], dim=1).tolist(), start=1):
            (left, top, right, bottom), (x1, y1, x2, y2), (x3, y3, x4, y4) = corners
            patch = F.resized_crop(other, top, left, bottom - top, right - left, [y2 - y1, x2 - x1])
            pixels[:, y3:y4, x3:x4] = patch[:, y3 - y1 : y4 - y1, x3 - x1 : x4 - x1]
            owner[y3:y4, x3:x4] = number

        boxes = torch.cat([objects, visible.to(objects.dtype)])
        labels = torch.cat([target["labels"], source["labels"][drawn]])
        owners = torch.arange(len(boxes)).sub_(len(objects) - 1).clamp_(min=0)  # the image's own: 0
        labelled = _occluded_fractions(owner, boxes, owners) <= _LARGEST_OCCLUSION
        pasted = [_moved(source["proposals"], *pair, size) for pair in zip(cut_outs, places, strict=True)]
        proposals = torch.cat([target["proposals"].as_subclass(Tensor), *pasted])
        return tv_tensors.wrap(pixels, like=image), {
            "boxes": tv_tensors.wrap(boxes[labelled], like=target["boxes"]),
            "labels": labels[labelled],
            "image_id": target["image_id"],
            "proposals": tv_tensors.wrap(proposals, like=target["proposals"]),
        }

    def _other_sample(self, image_id: str) -> tuple[tv_tensors.Image, Target]:
        """Return a sample drawn from the set; if it is of the image itself, the one after it."""
        index = int(torch.randint(len(self.samples), ()))
        image, target = self.samples[index]
        return self.samples[(index + 1) % len(self.samples)] if target["image_id"] == image_id else (image, target)


def _whole_pixels(boxes: Tensor) -> Tensor:
    """Return the smallest boxes (n x 4, int64) of whole pixels around boxes (n x 4, XYXY)."""
    plain = boxes.as_subclass(Tensor)
    return torch.cat([plain[:, :2].floor(), plain[:, 2:].ceil()], dim=1).long()


def _integer(low: int, high: int) -> int:
    """Return an integer from low to high, both possible."""
    return int(torch.randint(low, high + 1, ()))


def _beside(box: Tensor, cut_out: Tensor) -> Tensor:
    """Return where a cut-out is pasted: as large as a box, its centre on the box's outline.

    Args:
        box: 4, XYXY.
        cut_out: 4, XYXY, whose shape it has; 2 pixels or more on a side, so that some of it lies in the image.

    Returns:
        4, XYXY, int64; it may stand out of the image.
    """
    sides, shape = box[2:] - box[:2], (cut_out[2:] - cut_out[:2]).to(box.dtype)
    pasted = (shape * (sides.prod() / shape.prod()).sqrt()).round().clamp(min=2)
    point, axis = torch.rand(2), int(torch.randint(2, ()))
    point[axis] = point[axis].round()  # to one of the two edges, each as likely
    corner = (box[:2] + point * sides - pasted / 2).floor()
    return torch.cat([corner, corner + pasted]).long()


def _moved(proposals: Tensor, cut_out: Tensor, place: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the proposals (m x 4, XYXY) of a cut-out as they lie around it where it was pasted.

    Args:
        proposals: P x 4, XYXY, of the image that it is from.
        cut_out: 4, XYXY, in that image.
        place: 4, XYXY, in the image that it was pasted into.
        size: height and width of that image, to which they are clipped; what is left of them is at least a pixel wide
            and high.
    """
    plain = proposals.as_subclass(Tensor)
    around = plain[box_iou(plain, cut_out[None].to(plain.dtype))[:, 0] >= _SMALLEST_IOU]
    scale = (place[2:] - place[:2]) / (cut_out[2:] - cut_out[:2])
    there = (around - cut_out[:2].repeat(2)) * scale.repeat(2) + place[:2].repeat(2)
    there = clip_boxes_to_image(there, size)
    solid: Tensor = there[remove_small_boxes(there, min_size=1)]
    return solid


def _occluded_fractions(owner: Tensor, boxes: Tensor, owners: Tensor) -> Tensor:
    """Return the fraction (n) of the pixels of each box that belong to another owner.

    Args:
        owner: H x W, int64, whose each pixel is.
        boxes: n x 4, XYXY, of positive area inside the image.
        owners: n, int64, whose each box is.
    """
    pairs = zip(_whole_pixels(boxes).tolist(), owners, strict=True)
    return torch.stack([(owner[y1:y2, x1:x2] != number).double().mean() for (x1, y1, x2, y2), number in pairs])
