"""Detection in all images of a dataset."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from afrcnn.build import load_detector
from afrcnn.core.engine import build_fabric
from afrcnn.data.layouts import open_dataset
from afrcnn.evaluation.detect import detect
from reference import assert_same_detections

CPU = build_fabric("cpu")


def test_detections_are_the_detector_s_image_by_image(run, dataset, detections):
    detector = load_detector(run)
    with torch.no_grad():
        for index, detection in enumerate(detections):
            image, target = dataset[index]
            assert_same_detections([detection], detector([image], [target["proposals"]]), 1e-5)
    assert len(detections) == 3
    assert all(len(detection["boxes"]) for detection in detections)


def test_detections_do_not_depend_on_the_number_of_loaders(run, dataset, detections):
    assert_same_detections(detect(load_detector(run), dataset, fabric=CPU, workers=2), detections, 0)


def test_bfloat16_detects_about_the_same(run, dataset, detections):
    fabric = build_fabric("cpu", precision="bf16-mixed")
    for one, other in zip(detect(load_detector(run), dataset, fabric=fabric, workers=0), detections, strict=True):
        assert one["boxes"].dtype == torch.float32
        assert one["scores"].dtype == torch.float32
        torch.testing.assert_close(one["scores"][:1], other["scores"][:1], rtol=0, atol=0.05)


class ByColour(nn.Module):
    """A detector that takes images alone, and finds one object of the brightest channel all over each."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.normalise, self.frozen = nn.BatchNorm2d(3), nn.BatchNorm2d(3).eval()
        self.devices = []

    def forward(self, images):
        assert not self.training
        assert not torch.is_grad_enabled()
        self.devices.append(self.weight.device.type)
        return [self.detection(image) for image in images]

    def detection(self, image):
        assert image.dtype == torch.float32
        assert image.max() <= 1
        box = torch.tensor([[0.0, 0, image.shape[2], image.shape[1]]], device=image.device)
        label = image.mean(dim=(1, 2)).argmax()[None] + 1
        return {"boxes": box, "labels": label, "scores": self.weight * 0.5, "masks": torch.zeros(1, 9, 9)}


def test_a_detector_of_another_kind_gets_images_alone_where_there_are_no_proposals(rectangles):
    plain = open_dataset(rectangles, "test")
    detections = detect(ByColour(), plain, fabric=CPU, workers=0)
    assert [set(detection) for detection in detections] == [{"boxes", "labels", "scores"}] * 3
    assert [detection["labels"].tolist() for detection in detections] == [[1], [3], [1]]  # red, blue, red
    function = ByColour().eval().forward
    assert_same_detections(detect(function, plain, workers=0), detections, 0)


def test_the_detector_is_left_in_its_mode(rectangles):
    detector = ByColour().train()
    detector.frozen.eval()
    detect(detector, open_dataset(rectangles, "test"), fabric=CPU, workers=0)
    assert detector.training
    assert detector.normalise.training
    assert not detector.frozen.training


class OtherDevice(type(CPU)):
    """A device to which a module is moved from the one other that every machine has."""

    def to_device(self, module):
        return module.to_empty(device=self.device)


@pytest.mark.parametrize("broken", [False, True])
def test_the_detector_is_left_on_its_device_and_in_its_mode_also_when_it_fails(rectangles, broken):
    class Detector(ByColour):
        def detection(self, image):
            if broken:
                raise RuntimeError("broken")
            return super().detection(image)

    detector = Detector().train().to("meta")
    with pytest.raises(RuntimeError, match="broken") if broken else nullcontext():
        detect(detector, open_dataset(rectangles, "test"), fabric=OtherDevice(CPU.device, "32-true"), workers=0)
    assert set(detector.devices) == {"cpu"}
    assert {tensor.device.type for tensor in detector.state_dict().values()} == {"meta"}
    assert detector.training


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_detects_and_gives_the_detector_back(rectangles):
    detector, plain = ByColour(), open_dataset(rectangles, "test")
    detections = detect(detector, plain, workers=0)
    assert set(detector.devices) == {"cuda"}
    assert detector.weight.device.type == "cpu"
    assert_same_detections(detections, detect(detector, plain, fabric=CPU, workers=0), 0)
