"""Plain implementations that the library's are compared with, and what several tests draw or are made of."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import tv_tensors

from afrcnn.adversaries.base import Adversary, AdversaryOutput, Head
from afrcnn.data.image import fingerprint
from afrcnn.proposals.store import Proposals, ProposalStore

# --- proposals ---


def random_proposals(rng: np.random.Generator, count: int, side: float = 50) -> np.ndarray:
    """Boxes, count x 4, float32, in an image of a side."""
    corners = rng.uniform(0, side, (2, count, 2))
    return np.concatenate([corners.min(0), corners.max(0) + 0.01], axis=1).clip(0, side).astype(np.float32)


def write_store(folder: Path, scenes, proposals: list[Proposals]) -> ProposalStore:
    """A store of proposals for the images of a dataset."""
    images = [
        (image_id, fingerprint(scenes.image_path(index)), proposals[index]) for index, image_id in enumerate(scenes.ids)
    ]
    return ProposalStore.write(folder, images, method="random", parameters={"seed": 0})


# --- adversaries and detectors ---


class PlainHead(Head):
    """A head of any function from features to class logits; windows are hidden one by one, as by default."""

    def __init__(self, logits):
        self.logits = logits

    def scores(self, features, labels):
        return self.logits(features).softmax(dim=1).gather(1, labels[:, None])[:, 0]

    def losses(self, features, labels):
        return F.cross_entropy(self.logits(features), labels, reduction="none")


class Constant(nn.Module):
    """The same logits whatever the features."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, features):
        return self.logits


class Zeroing(Adversary):
    """Zeroes all that it is given, and notes it; its loss is the number of objects, and depends on its weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.calls = 0

    def forward(self, features, labels, head, context=None):
        self.features, self.labels, self.head, self.context = features.detach(), labels, head, context
        self.calls += 1
        return AdversaryOutput(0 * features, self.weight * len(labels), {"objects": torch.tensor(float(len(labels)))})


def losses_one_by_one(features, labels, logits, masks):
    """The losses n x W of each object with each mask hidden: one call of ``logits`` for each."""
    losses = [
        F.cross_entropy(logits((x * ~mask)[None]), label[None])
        for x, label in zip(features, labels, strict=True)
        for mask in masks
    ]
    return torch.stack(losses).view(len(features), len(masks))


def windows_by_loops(size, window, stride=1):
    """All windows on a grid, row by row, W x size x size; the last ones are moved back so that they fit."""
    masks, starts = [], []
    for start in range(0, size, stride):
        fitting = min(start, size - window)
        starts += [fitting] * (fitting not in starts)
    for top in starts:
        for left in starts:
            mask = torch.zeros(size, size, dtype=torch.bool)
            mask[top : top + window, left : left + window] = True
            masks.append(mask)
    return torch.stack(masks)


def adversarial_by_counting(fraction, images):
    """Image by image: clean while there are fewer clean ones than the fraction of all, this one included."""
    clean, turns = 0, []
    for number in range(1, images + 1):
        is_clean = clean < fraction * number
        clean += is_clean
        turns.append(not is_clean)
    return turns


def binary_cross_entropy_by_loops(logits, target, counted):
    """Equation 1, a cell at a time: summed over the cells that count, divided by the objects."""
    total = 0.0
    for heatmap, mask, count in zip(logits.tolist(), target.tolist(), counted.tolist(), strict=True):
        for row in range(len(heatmap)):
            for column in range(len(heatmap)):
                a = 1 / (1 + math.exp(-heatmap[row][column]))
                if count[row][column]:
                    total -= math.log(a) if mask[row][column] else math.log(1 - a)
    return total / len(logits)


def random_boxes(count, extent=50.0, side=30.0, *, whole=False):
    """Boxes (count x 4) of at least 3 pixels a side, of whole pixels or not."""
    corner, sides = torch.rand(count, 2) * extent, 3 + torch.rand(count, 2) * side
    boxes = torch.cat([corner, corner + sides], dim=1)
    return boxes.floor() if whole else boxes


def random_target(objects, num_classes=3, **keys):
    """The target of an image with some objects."""
    labels = torch.randint(1, num_classes + 1, (objects,))
    return {"boxes": random_boxes(objects), "labels": labels, **keys}


# --- evaluation ---


def found(boxes, scores, labels=None):
    """Detections in an image; of the first class where no labels are given."""
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels or [1] * len(boxes), dtype=torch.int64),
        "scores": torch.tensor(scores, dtype=torch.float32),
    }


def truth(boxes, labels=None, **flags):
    """The target of an image of 500 x 500; of the first class where no labels are given."""
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return {
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(500, 500)),
        "labels": torch.tensor(labels or [1] * len(boxes), dtype=torch.int64),
        **{name: torch.tensor(value) for name, value in flags.items()},
    }


def assert_same_detections(detections, expected, tolerance):
    """Check that the detections of all images are the same, boxes and scores up to a tolerance."""
    assert len(detections) == len(expected)
    for one, other in zip(detections, expected, strict=True):
        assert torch.equal(one["labels"], other["labels"])
        torch.testing.assert_close(one["boxes"], other["boxes"], rtol=0, atol=tolerance)
        torch.testing.assert_close(one["scores"], other["scores"], rtol=0, atol=tolerance)


def plain_iou(a, b):
    """The IoU of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared) if shared else 0.0


def rows_of(image, *names):
    """The rows of an image's columns, as plain numbers."""
    return list(zip(*(np.asarray(image[name]).tolist() for name in names), strict=True))


def plain_voc_ap(detections, targets, classes, threshold=0.5, ignored=None):
    """VOCevaldet.m in its own 1-based inclusive pixels, with the strict threshold.

    For each class its number of objects, how many are found, and the AP by both metrics, NaN without objects.
    """
    result = {}
    for label, name in enumerate(classes, start=1):
        # All detections of the class, by falling confidence; a stable sort, as MATLAB's.
        confident = []
        for image, detection in enumerate(detections):
            rows = rows_of(detection, "boxes", "labels", "scores")
            confident += [(score, image, box) for box, other, score in rows if other == label]
        confident.sort(key=lambda item: -item[0])
        objects = []
        for image, target in enumerate(targets):
            flags = target["difficult"] if ignored is None else ignored[image]
            rows = rows_of(target | {"flags": flags}, "boxes", "labels", "flags")
            objects.append([{"box": box, "ignored": flag, "detected": False} for box, k, flag in rows if k == label])
        count = sum(not item["ignored"] for image in objects for item in image)
        tp = fp = 0
        curve = []
        for _, image, box in confident:
            best, overlap = None, -float("inf")
            for item in objects[image]:
                a, b = ((x1 + 1, y1 + 1, x2, y2) for x1, y1, x2, y2 in (box, item["box"]))
                width = min(a[2], b[2]) - max(a[0], b[0]) + 1
                height = min(a[3], b[3]) - max(a[1], b[1]) + 1
                if width > 0 and height > 0:
                    areas = ((x2 - x1 + 1) * (y2 - y1 + 1) for x1, y1, x2, y2 in (a, b))
                    iou = width * height / (sum(areas) - width * height)
                    if iou > overlap:
                        best, overlap = item, iou
            if overlap > threshold:
                if best["ignored"]:
                    continue
                if best["detected"]:
                    fp += 1
                else:
                    tp += 1
                    best["detected"] = True
            else:
                fp += 1
            curve.append((tp / max(count, 1), tp / (tp + fp)))
        eleven = 0.0
        for recall in np.arange(0.0, 1.1, 0.1):
            eleven += max((p for r, p in curve if r >= recall), default=0.0) / 11
        # VOCap.m: sentinels at both ends, precision made falling from the right, the steps of recall.
        mrec = [0.0, *(r for r, _ in curve), 1.0]
        mpre = [0.0, *(p for _, p in curve), 0.0]
        for i in range(len(mpre) - 2, -1, -1):
            mpre[i] = max(mpre[i], mpre[i + 1])
        area = sum((mrec[i] - mrec[i - 1]) * mpre[i] for i in range(1, len(mrec)))
        ap = {"11-point": eleven, "area": area} if count else dict.fromkeys(("11-point", "area"), float("nan"))
        result[name] = {"objects": count, "found": tp, **ap}
    return result


def random_errors(rng, classes, images=25):
    """Detections and targets on a coarse grid: ties of scores and overlaps, second detections, difficult objects."""
    detections, targets = [], []
    for _ in range(images):
        count = int(rng.integers(0, 5))
        corner = rng.integers(0, 8, (count, 2)) * 10
        boxes = np.hstack([corner, corner + rng.integers(1, 5, (count, 2)) * 10])
        labels = rng.integers(1, classes + 1, count)
        targets.append(truth(boxes, labels.tolist() or None, difficult=(rng.random(count) < 0.2).tolist()))
        if count == 0:
            targets[-1]["difficult"] = torch.zeros(0, dtype=torch.bool)
        copies = rng.integers(0, count, int(rng.integers(0, 8))) if count else np.zeros(0, dtype=int)
        moved = boxes[copies] + rng.integers(-1, 2, (len(copies), 4)) * 10 * (rng.random((len(copies), 1)) < 0.6)
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 10)
        free = rng.integers(0, 9, (int(rng.integers(0, 3)), 2)) * 10
        boxes = np.vstack([moved, np.hstack([free, free + 20])])
        copied = np.where(rng.random(len(copies)) < 0.6, labels[copies], rng.integers(1, classes + 1, len(copies)))
        kinds = np.concatenate([copied, rng.integers(1, classes + 1, len(free))])
        detections.append(found(boxes, rng.choice(np.linspace(0.1, 0.9, 5), len(boxes)), kinds.tolist()))
    return detections, targets


def plain_outcomes(detections, targets, label, threshold):
    """What VOC's rules make of the detections of a class, by falling score: hit, second, miss or ignored.

    By the image and the index of each detection in it.
    """
    scored = [
        (-score, image, index)
        for image, boxes in enumerate(detections)
        for index, (kind, score) in enumerate(rows_of(boxes, "labels", "scores"))
        if kind == label
    ]
    outcomes, taken = {}, set()
    for _, image, index in sorted(scored, key=lambda row: row[0]):
        box, best, overlap = detections[image]["boxes"][index].tolist(), None, 0.0
        for number, (other, kind) in enumerate(rows_of(targets[image], "boxes", "labels")):
            if kind == label and plain_iou(box, other) > overlap:
                best, overlap = number, plain_iou(box, other)
        if overlap <= threshold:
            outcomes[image, index] = "miss"
        elif targets[image]["difficult" if "difficult" in targets[image] else "iscrowd"][best]:
            outcomes[image, index] = "ignored"
        else:
            outcomes[image, index] = "second" if (image, best) in taken else "hit"
            taken.add((image, best))
    return outcomes


def plain_error_kinds(detections, targets, classes, similar):
    """The kind of each false positive as Hoiem et al. define them, None of anything else, by image and index.

    Args:
        similar: pairs of labels.
    """
    kinds = {}
    for label in range(1, classes + 1):
        for (image, index), outcome in plain_outcomes(detections, targets, label, 0.5).items():
            box = detections[image]["boxes"][index].tolist()
            near = [kind for other, kind in rows_of(targets[image], "boxes", "labels") if plain_iou(box, other) >= 0.1]
            if outcome in {"hit", "ignored"}:
                kind = None
            elif outcome == "second" or label in near:
                kind = "localisation"
            elif any((label, other) in similar for other in near):
                kind = "similar"
            else:
                kind = "other" if near else "background"
            kinds[image, index] = kind
    return kinds
