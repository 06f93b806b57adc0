"""A drawn set in COCO layout with masks: bright ellipses on dark noise."""

import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image


def write_coco_scenes(root: Path, count: int, splits=("train",), size: int = 224, side=(90, 140)) -> Path:
    """Write ``count`` images of two objects for each split; even objects have run lengths, odd ones polygons."""
    for number, split in enumerate(splits):
        rng = np.random.default_rng(number)
        images, annotations = [], []
        (root / split).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 60, (size, size + 32, 3), dtype=np.uint8)
            for middle in (0.3, 0.7):
                half = [int(value) // 2 for value in rng.integers(*side, 2)]
                centre = int(middle * size) + 16, int(rng.uniform(0.35, 0.65) * size)
                mask = np.zeros(pixels.shape[:2], dtype=np.uint8)
                half[0] = half[0] // 2
                cv2.ellipse(mask, centre, half, 0, 0, 360, 1, -1)
                pixels[mask > 0] = rng.integers(170, 256, 3)
                (outline,), _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
                x, y, width, height = cv2.boundingRect(outline)
                id_ = len(annotations) + 1
                flat = mask.T.ravel()
                changes = np.flatnonzero(np.diff(np.concatenate([[0], flat, [2]])))
                run_lengths = {"size": list(mask.shape), "counts": np.diff([0, *changes]).tolist()}
                corners = [x, y, x + width, y, x + width, y + height, x, y + height]
                ellipse = id_ % 2 == 0
                if not ellipse:  # a rectangle, whose polygon is exact
                    pixels[y : y + height, x : x + width] = rng.integers(170, 256, 3)
                annotation = {"id": id_, "image_id": index + 1, "category_id": 1, "iscrowd": 0}
                annotation |= {"bbox": [x, y, width, height], "area": int(mask.sum())}
                annotations.append(annotation | {"segmentation": run_lengths if ellipse else [corners]})
            Image.fromarray(pixels).save(root / split / f"{index}.png")
            images.append({"id": index + 1, "file_name": f"{index}.png", "height": size, "width": size + 32})
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
        file = root / "annotations" / f"instances_{split}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
    return root
