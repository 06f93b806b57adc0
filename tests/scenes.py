"""The same scenes in every layout that people have, written without the library: what its readers must agree on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import numpy as np
from PIL import Image

from afrcnn.data.annotations import AnnotatedImages

CLASSES = ("apple", "kiwi", "pear")

HEIGHT, WIDTH = 32, 64  # of the image: powers of two, so that fractions of it are exact

Scene = list[tuple[str, tuple[int, int, int, int]]]

SCENES: dict[str, dict[str, Scene]] = {
    "train": {
        "a": [("pear", (4, 6, 20, 30)), ("apple", (10, 2, 60, 18))],
        "b": [("kiwi", (0, 0, 64, 32))],
        "empty": [],
    },
    "valid": {"c": [("apple", (32, 8, 48, 24)), ("apple", (2, 2, 8, 10)), ("kiwi", (33, 9, 41, 21))]},
}
"""Of each split, the images, and the objects of each: x1, y1, x2, y2, half-open."""

WHOLE = {name: scene for scenes in SCENES.values() for name, scene in scenes.items()}


def write_image(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(crc32(path.stem.encode()) + seed).integers(
        0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8
    )
    Image.fromarray(pixels).save(path)


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def xml(scene: Scene) -> str:
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax>"
        f"<ymax>{y2}</ymax></bndbox></object>"
        for name, (x1, y1, x2, y2) in scene
    )
    return f"<annotation><size><width>{WIDTH}</width><height>{HEIGHT}</height></size>{objects}</annotation>"


def coco(scenes: dict[str, Scene], *, prefix: str = "", heading: bool = False) -> str:
    categories = [{"id": n + heading, "name": name, "supercategory": "fruit"} for n, name in enumerate(CLASSES)]
    if heading:
        categories.insert(0, {"id": 0, "name": "fruit", "supercategory": "none"})
    images, annotations = [], []
    for n, (image, scene) in enumerate(scenes.items()):
        images.append({"id": n, "file_name": f"{prefix}{image}.jpg", "width": WIDTH, "height": HEIGHT})
        for name, (x1, y1, x2, y2) in scene:
            category, box = CLASSES.index(name) + heading, [x1, y1, x2 - x1, y2 - y1]
            record = {"id": len(annotations), "image_id": n, "category_id": category, "bbox": box}
            annotations.append({**record, "area": (x2 - x1) * (y2 - y1), "iscrowd": 0})
    return json.dumps({"images": images, "categories": categories, "annotations": annotations})


def yolo(scene: Scene) -> str:
    lines = []
    for name, (x1, y1, x2, y2) in scene:
        values = ((x1 + x2) / 2 / WIDTH, (y1 + y2) / 2 / HEIGHT, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT)
        lines.append(" ".join(map(str, (CLASSES.index(name), *values))) + "\n")
    return "".join(lines)


def write_images(root: Path, place: str) -> None:
    """Write all images; ``place`` has the fields ``split`` and ``name``."""
    for split, scenes in SCENES.items():
        for name in scenes:
            write_image(root / place.format(split=split, name=name))


def write_annotations(root: Path, place: str, content: Callable[[Scene], str]) -> None:
    for split, scenes in SCENES.items():
        for name, scene in scenes.items():
            write_text(root / place.format(split=split, name=name), content(scene))


def voc_lists(root: Path) -> None:
    write_images(root, "JPEGImages/{name}.jpg")
    write_annotations(root, "Annotations/{name}.xml", xml)
    for split, scenes in SCENES.items():
        write_text(root / f"ImageSets/Main/{split}.txt", "".join(f"{name}\n" for name in scenes))


def coco_standard(root: Path) -> None:
    write_images(root, "{split}/{name}.jpg")
    for split, scenes in SCENES.items():
        write_text(root / f"annotations/instances_{split}.json", coco(scenes))


def labelimg(root: Path) -> None:
    write_images(root, "images/{name}.jpg")
    write_annotations(root, "annots/{name}.xml", xml)


def labelimg_voc_folders(root: Path) -> None:
    write_images(root, "JPEGImages/{name}.JPG")
    write_annotations(root, "Annotations/{name}.xml", xml)


def labelimg_beside(root: Path) -> None:
    write_images(root, "{name}.jpg")
    write_annotations(root, "{name}.xml", xml)


def roboflow_voc(root: Path) -> None:
    write_images(root, "{split}/{name}.jpg")
    write_annotations(root, "{split}/{name}.xml", xml)
    write_text(root / "README.roboflow.txt", "fruit\n")


def roboflow_coco(root: Path) -> None:
    write_images(root, "{split}/{name}.jpg")
    for split, scenes in SCENES.items():
        write_text(root / split / "_annotations.coco.json", coco(scenes, heading=True))
    write_text(root / "README.dataset.txt", "fruit\n")


def cvat(root: Path) -> None:
    write_images(root, "images/default/{name}.jpg")
    write_text(root / "annotations/instances_default.json", coco(WHOLE))


def label_studio(root: Path) -> None:
    write_images(root, "images/{name}.jpg")
    write_text(root / "result.json", coco(WHOLE, prefix="images\\"))


def fiftyone(root: Path) -> None:
    write_images(root, "data/{name}.jpg")
    write_text(root / "labels.json", coco(WHOLE))


def roboflow_yolo(root: Path) -> None:
    write_images(root, "{split}/images/{name}.jpg")
    write_annotations(root, "{split}/labels/{name}.txt", yolo)
    write_text(root / "data.yaml", f"train: ../train/images\nval: ../valid/images\nnc: 3\nnames: {list(CLASSES)}\n")


def ultralytics(root: Path) -> None:
    write_images(root, "images/{split}/{name}.jpg")
    write_annotations(root, "labels/{split}/{name}.txt", yolo)
    names = "".join(f"  {n}: {name}\n" for n, name in enumerate(CLASSES))
    write_text(root / "fruit.yaml", f"path: {root}\ntrain: images/train\nval: [images/valid]\ntest:\nnames:\n{names}")


def yolo_lists(root: Path) -> None:
    write_images(root, "images/{name}.jpg")
    write_annotations(root, "labels/{name}.txt", yolo)
    for split, scenes in SCENES.items():
        write_text(root / f"{split}.txt", "".join(f"./images/{name}.jpg\r\n" for name in scenes))
    write_text(root / "data.yaml", f"\ufeffpath: .\ntrain: train.txt\nval: valid.txt\nnames: {list(CLASSES)}\n")


def yolo_folders(root: Path) -> None:
    write_images(root, "images/{split}/{name}.jpg")
    write_annotations(root, "labels/{split}/{name}.txt", yolo)
    write_text(root / "classes.txt", "\r\n".join(CLASSES) + "\r\n\r\n")


def label_studio_yolo(root: Path) -> None:
    write_images(root, "images/{name}.png")
    write_annotations(root, "labels/{name}.txt", yolo)
    write_text(root / "classes.txt", "\n".join(CLASSES))
    write_text(root / "notes.json", "{}")


def labelimg_yolo(root: Path) -> None:
    write_images(root, "{name}.webp")
    write_annotations(root, "{name}.txt", yolo)
    write_text(root / "classes.txt", "\n".join(CLASSES))


WITH_SPLITS = (
    voc_lists,
    coco_standard,
    roboflow_voc,
    roboflow_coco,
    roboflow_yolo,
    ultralytics,
    yolo_lists,
    yolo_folders,
)
WITHOUT_SPLITS = (
    labelimg,
    labelimg_voc_folders,
    labelimg_beside,
    cvat,
    label_studio,
    fiftyone,
    label_studio_yolo,
    labelimg_yolo,
)


def shown(dataset: AnnotatedImages) -> dict[str, Scene]:
    """What a dataset says of its images, by the stems of their files."""
    images = {}
    for index in range(len(dataset)):
        image, target = dataset[index]
        assert image.shape == (3, HEIGHT, WIDTH)
        names = [dataset.classes[label - 1] for label in target["labels"].tolist()]
        boxes = [tuple(map(int, box)) for box in target["boxes"].tolist()]
        assert [list(map(float, box)) for box in boxes] == target["boxes"].tolist()
        images[dataset.image_path(index).stem] = list(zip(names, boxes, strict=True))
    return images
