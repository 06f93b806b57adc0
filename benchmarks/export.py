"""An exported detector in onnxruntime against the same detector in PyTorch: how often as fast, and how far apart.

python benchmarks/export.py [RUN]     (without a run: AlexNet with random weights, images of 600 pixels)
"""

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np
import onnxruntime
import torch

from afrcnn.build import build_detector, load_detector
from afrcnn.detectors.exported import export_program, export_settings, onnx_bytes
from afrcnn.detectors.standalone import detect_objects, load_session
from afrcnn.recipe import DetectorRecipe
from afrcnn.run import Run

IMAGES, ROUNDS, PROPOSALS = 3, 3, 300


def seconds(detect, image, proposals):
    start = time.perf_counter()
    result = detect(image, proposals)
    return time.perf_counter() - start, result


def main():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    torch.set_num_threads(1)
    if sys.argv[1:]:
        detector = load_detector(Run(sys.argv[1]))
    else:
        recipe = DetectorRecipe(backbone="alexnet", pooling="roi_align", weights=None, dropout=None)
        detector = build_detector(recipe, 20, pretrained=False).eval()
        torch.nn.init.normal_(detector.roi_heads.predictor.cls_score.weight, std=1.0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(onnx_bytes(export_program(detector), export_settings(detector)))
        _, settings = load_session(str(file))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(file), options)

    def in_pytorch(image, proposals):
        with torch.inference_mode():
            pixels = torch.from_numpy(image).permute(2, 0, 1)
            return detector([pixels], [torch.from_numpy(proposals)])[0]

    def in_onnxruntime(image, proposals):
        return detect_objects(session, settings, image, proposals)

    ratios, differences, counts = [], [], []
    for _ in range(IMAGES):
        image = rng.integers(0, 256, (375, 500, 3), dtype=np.uint8)
        corners = rng.uniform(0, 300, (PROPOSALS, 2))
        proposals = np.hstack([corners, corners + rng.uniform(20, 75, (PROPOSALS, 2))]).astype(np.float32)
        pair = (in_pytorch, in_onnxruntime)
        times = [[seconds(detect, image, proposals) for detect in pair] for _ in range(ROUNDS + 1)]
        ratios += [torch_time / onnx_time for (torch_time, _), (onnx_time, _) in times[1:]]
        (_, expected), (_, (_, _, scores)) = times[-1]
        # By falling score, whatever the order of equal ones; a box at the limit of suppression may come or go.
        count = min(len(scores), len(expected["scores"]))
        differences.append(float(np.abs(scores[:count] - expected["scores"].numpy()[:count]).max(initial=0)))
        counts.append((len(expected["scores"]), len(scores)))
    low, middle, high = np.quantile(ratios, [0, 0.5, 1])
    print(f"onnxruntime against PyTorch, whole detections of {PROPOSALS} proposals, one thread each:")
    print(f"  {middle:.2f} times as fast (from {low:.2f} to {high:.2f} in {len(ratios)} pairs)")
    print(f"  scores differ by at most {max(differences):.1e}; detections of each image, in both: {counts}")


if __name__ == "__main__":
    main()
