"""Truncated SVD of fully connected layers (Fast R-CNN, arXiv:1504.08083, section 3.1)."""

from __future__ import annotations

import torch
from torch import nn

from afrcnn.core.errors import UserError
from afrcnn.detectors.backbones import FullyConnectedHead
from afrcnn.detectors.rcnn import FastRCNN


@torch.no_grad()
def _truncate(linear: nn.Linear, rank: int) -> nn.Sequential:
    """Replace a fully connected layer by two smaller ones: W, u x v, by U_t and (S_t V_t^T).

    The product of the two is the matrix of rank t nearest to W; they hold t (u + v) weights instead of u v.
    With W W^T = U S^2 U^T, S_t V_t^T is U_t^T W: the eigenvectors of the smaller of W W^T and W^T W suffice,
    which for fc6 of VGG16 (4096 x 25088) is several times faster than the SVD of W. Squaring halves the digits
    that small singular values keep, so it is done in float64.

    Args:
        linear: from v to u features; it is left as it is.
        rank: t, from 1 to min(u, v).

    Returns:
        The layer from v to t without biases, then that from t to u with those of ``linear``.

    Raises:
        UserError: the rank is out of its range.
    """
    outputs, inputs = linear.weight.shape
    if not 1 <= rank <= min(outputs, inputs):
        raise UserError(
            f"a layer from {inputs} to {outputs} has no rank {rank}",
            field="rank",
            fix=f"choose from 1 to {min(outputs, inputs)}",
        )
    weight = linear.weight.double()
    gram = weight @ weight.T if outputs <= inputs else weight.T @ weight
    leading = torch.linalg.eigh(gram).eigenvectors[:, -rank:]  # eigenvalues ascend
    down, up = (leading.T @ weight, leading) if outputs <= inputs else (leading.T, weight @ leading)

    first = nn.Linear(inputs, rank, bias=False, device="meta")  # no random numbers are drawn there
    second = nn.Linear(rank, outputs, bias=linear.bias is not None, device="meta")
    first.weight = nn.Parameter(down.to(linear.weight.dtype))
    second.weight = nn.Parameter(up.to(linear.weight.dtype))
    if linear.bias is not None:
        second.bias = nn.Parameter(linear.bias.clone())
    return nn.Sequential(first, second)


def truncate_detector(detector: nn.Module, fc6: int = 1024, fc7: int = 256) -> None:
    """Truncate the two layers of a detector's fully connected box head in place.

    Args:
        detector: on AlexNet, VGG16, SqueezeNet or the small network.
        fc6: the rank of fc6; by default that of Fast R-CNN (section 4.4) for VGG16.
        fc7: the rank of fc7; likewise.

    Raises:
        UserError: the box head has no fully connected layers, they are truncated already, or a rank is too large.
    """
    box_head = detector.roi_heads.box_head if isinstance(detector, FastRCNN) else None
    if not isinstance(box_head, FullyConnectedHead):
        raise UserError(
            "truncated SVD needs fc6 and fc7, which this detector does not have",
            fix="leave it out, or take AlexNet, VGG16, SqueezeNet or the small network",
        )
    if not isinstance(box_head.fc6, nn.Linear) or not isinstance(box_head.fc7, nn.Linear):
        raise UserError("fc6 and fc7 are truncated already", fix="start from the whole box head")
    box_head.fc6, box_head.fc7 = _truncate(box_head.fc6, fc6), _truncate(box_head.fc7, fc7)
