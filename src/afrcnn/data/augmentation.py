"""Hiding objects in photographs: what is done in image space to the end that adversaries pursue in feature space.

Each transform is called with a training sample (image, target), and draws from the global generator, which the stream
of samples sets for each of them.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.ops import box_iou, clip_boxes_to_image, remove_small_boxes
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from afrcnn.data.target import Target

MEAN_COLOUR = (124, 116, 104)
"""ImageNet's mean colour, which normalisation turns into 0."""

LARGEST_COVER = 0.7
"""An object of which pasted objects hide more is no longer labelled."""

SMALLEST_IOU = 0.1
"""Proposals of a pasted object are those that overlap it at least so much: all that can be trained on with it, as
foreground or as background (Fast R-CNN, section 2.3)."""


class Samples(Protocol):
    """A set of training samples, whose targets hold what is trained on."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, Target]:
        """Return an image (3 x H x W, uint8) and its target."""


class RandomErasing(nn.Module):
    """Erases one rectangle of the photograph, wherever it falls (Zhong et al. 2020, arXiv:1708.04896).

    It is torchvision's transform with its defaults: 2 to 33% of the image, sides up to 3.3 to 1, with what is 0 after
    normalisation. Boxes and proposals stay.

    Args:
        p: the probability that an image loses a rectangle, in [0, 1].
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.erase = v2.RandomErasing(p, value=MEAN_COLOUR)

    def forward(self, image: tv_tensors.Image, target: Target) -> tuple[tv_tensors.Image, Target]:
        """Return the image (3 x H x W, uint8) with a rectangle erased, and its target."""
        return self.erase(image), target


class CutOut(nn.Module):
    """Hides a part of every object under a rectangle of the mean colour (cut-out, DeVries and Taylor 2017, by object).

    The rectangle has the shape of the object's box, and lies anywhere in it. Boxes and proposals stay. Where boxes
    overlap, the rectangle of one may hide more of another.

    Args:
        share: the fraction of each box's area that its rectangle has, in [0, 1], to the nearest row of pixels.
    """

    def __init__(self, share: float = 1 / 3) -> None:
        super().__init__()
        self.share = share

    def forward(self, image: tv_tensors.Image, target: Target) -> tuple[tv_tensors.Image, Target]:
        """Return the image (3 x H x W, uint8) with every object partly hidden, and its target."""
        pixels = image.as_subclass(Tensor).clone()
        colour = torch.tensor(MEAN_COLOUR, dtype=pixels.dtype)[:, None, None]
        boxes = target["boxes"].as_subclass(Tensor)
        for (x1, y1, x2, y2), (left, top, right, bottom) in zip(
            boxes.tolist(), whole_pixels(boxes).tolist(), strict=True
        ):
            width = max(1, round(self.share**0.5 * (x2 - x1)))
            height = min(round(self.share * (x2 - x1) * (y2 - y1) / width), bottom - top)
            x, y = integer(left, right - width), integer(top, bottom - height)
            pixels[:, y : y + height, x : x + width] = colour
        return tv_tensors.wrap(pixels, like=image), target


class CopyPaste(nn.Module):
    """Hides a part of every object under an object of another training image (copy-paste).

    After Ghiasi et al. 2021 (arXiv:2012.07177), but aimed at objects, and by boxes, which is what all datasets have.
    One other image is drawn; every object of this image gets an object of that one, cut out by its box, scaled to as
    large an area, and pasted with its centre on the outline of the object's box. So each hides at most half of the
    object that it is pasted for, and if it has the same shape at least a quarter, 3/8 in the mean, and what others hide
    besides.

    What was pasted is labelled as well, with the box of what lies in the image, and brings the proposals around it from
    its own image, moved along and clipped; of the image, all proposals stay. Objects, pasted ones too, of which pasted
    ones hide more than ``LARGEST_COVER`` lose their label. Of the target, ``boxes``, ``labels``, ``image_id`` and
    ``proposals`` remain: what else it said of the objects is no longer true. Without objects in both images, nothing
    happens.

    Args:
        samples: the training set that other images are drawn from.
        mirrored: the probability that the other image is mirrored, in [0, 1].
    """

    def __init__(self, samples: Samples, mirrored: float = 0.5) -> None:
        super().__init__()
        self.samples = samples
        self.mirror = v2.RandomHorizontalFlip(mirrored)

    def forward(self, image: tv_tensors.Image, target: Target) -> tuple[tv_tensors.Image, Target]:
        """Return the image (3 x H x W, uint8) with objects pasted over its own, and the target of what it now shows."""
        other, source = self.mirror(*self.another(target["image_id"]))
        objects: Tensor = target["boxes"].as_subclass(Tensor)
        if not (len(objects) and len(source["boxes"])):
            return image, target

        size = (image.shape[-2], image.shape[-1])
        drawn = torch.randint(len(source["boxes"]), (len(objects),))
        cut_outs = whole_pixels(source["boxes"][drawn])
        places = torch.stack([beside(box, cut_out) for box, cut_out in zip(objects, cut_outs, strict=True)])
        visible = clip_boxes_to_image(places, size)
        pixels, owner = image.as_subclass(Tensor).clone(), torch.zeros(size, dtype=torch.int64)
        for number, parts in enumerate(zip(cut_outs, places, visible, strict=True), start=1):
            (left, top, right, bottom), (x1, y1, x2, y2), (x3, y3, x4, y4) = (part.tolist() for part in parts)
            patch = F.resized_crop(other, top, left, bottom - top, right - left, [y2 - y1, x2 - x1])
            pixels[:, y3:y4, x3:x4] = patch[:, y3 - y1 : y4 - y1, x3 - x1 : x4 - x1]
            owner[y3:y4, x3:x4] = number

        boxes = torch.cat([objects, visible.to(objects.dtype)])
        labels = torch.cat([target["labels"], source["labels"][drawn]])
        owners = torch.arange(len(boxes)).sub_(len(objects) - 1).clamp_(min=0)  # the photograph's own: 0
        kept = hidden_shares(owner, boxes, owners) <= LARGEST_COVER
        brought = [moved(source["proposals"], *parts, size) for parts in zip(cut_outs, places, strict=True)]
        proposals = torch.cat([target["proposals"].as_subclass(Tensor), *brought])
        return tv_tensors.wrap(pixels, like=image), {
            "boxes": tv_tensors.wrap(boxes[kept], like=target["boxes"]),
            "labels": labels[kept],
            "image_id": target["image_id"],
            "proposals": tv_tensors.wrap(proposals, like=target["proposals"]),
        }

    def another(self, image_id: str) -> tuple[tv_tensors.Image, Target]:
        """Return a sample drawn from the set; if it is of the image itself, the one after it."""
        index = int(torch.randint(len(self.samples), ()))
        image, target = self.samples[index]
        return self.samples[(index + 1) % len(self.samples)] if target["image_id"] == image_id else (image, target)


def whole_pixels(boxes: Tensor) -> Tensor:
    """Return the smallest boxes (n x 4, int64) of whole pixels around boxes (n x 4, XYXY)."""
    plain = boxes.as_subclass(Tensor)
    return torch.cat([plain[:, :2].floor(), plain[:, 2:].ceil()], dim=1).long()


def integer(low: int, high: int) -> int:
    """Return an integer from low to high, both possible."""
    return int(torch.randint(low, high + 1, ()))


def beside(box: Tensor, cut_out: Tensor) -> Tensor:
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


def moved(proposals: Tensor, cut_out: Tensor, place: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the proposals (m x 4, XYXY) of a cut-out as they lie around it where it was pasted.

    Args:
        proposals: P x 4, XYXY, of the image that it is from.
        cut_out: 4, XYXY, in that image.
        place: 4, XYXY, in the image that it was pasted into.
        size: height and width of that image, to which they are clipped; what is left of them is at least a pixel wide
            and high.
    """
    plain = proposals.as_subclass(Tensor)
    around = plain[box_iou(plain, cut_out[None].to(plain.dtype))[:, 0] >= SMALLEST_IOU]
    scale = (place[2:] - place[:2]) / (cut_out[2:] - cut_out[:2])
    there = (around - cut_out[:2].repeat(2)) * scale.repeat(2) + place[:2].repeat(2)
    there = clip_boxes_to_image(there, size)
    solid: Tensor = there[remove_small_boxes(there, min_size=1)]
    return solid


def hidden_shares(owner: Tensor, boxes: Tensor, owners: Tensor) -> Tensor:
    """Return the share (n) of the pixels of each box that belong to another owner.

    Args:
        owner: H x W, int64, whose each pixel is.
        boxes: n x 4, XYXY, of positive area inside the image.
        owners: n, int64, whose each box is.
    """
    return torch.stack(
        [
            (owner[top:bottom, left:right] != own).double().mean()
            for (left, top, right, bottom), own in zip(whole_pixels(boxes).tolist(), owners, strict=True)
        ]
    )
