"""Plain loops that faster implementations are compared with."""

import numpy as np

# evaluation


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
