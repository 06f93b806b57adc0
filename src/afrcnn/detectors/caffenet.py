"""CaffeNet: Krizhevsky's network of 2012 as Caffe has it, which Fast R-CNN's authors and the paper's call AlexNet."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn


class _LocalResponseNorm(nn.LocalResponseNorm):
    """Local response normalisation over five channels, in float32 whatever autocast chose.

    b_i = a_i / (1 + 1e-4 / 5 * sum of a_j ** 2) ** 0.75, over the channels j from i - 2 to i + 2. The squares of
    activations, which are hundreds here, overflow float16.
    """

    def __init__(self) -> None:
        super().__init__(5, alpha=1e-4, beta=0.75, k=1.0)

    def forward(self, features: Tensor) -> Tensor:
        """Return features N x C x H x W, normalised."""
        return super().forward(features.float()).to(features.dtype)


class CaffeNet(nn.Sequential):
    """The layers, and hence the names of weights, of Caffe's prototxt, from conv1 to fc7.

    Channels, groups and the order of pooling and normalisation are those of Caffe's reference model (BVLC/caffe,
    models/bvlc_reference_caffenet/train_val.prototxt); Krizhevsky normalises before he pools. The pads are those of
    Fast R-CNN (rbgirshick/fast-rcnn, models/CaffeNet/train.prototxt): 5, 1 and 1 in conv1 and the two poolings.
    The AlexNet of the Torch implementation that the paper follows was "trained in caffe by Ross Girshick"
    (facebookresearch/multipathnet, README); among his networks in Fast R-CNN, that is this one.

    Images N x 3 x H x W, for which relu5 has 6 x 6 cells (69 to 84 pixels a side), become vectors N x 4096.
    """

    def __init__(self) -> None:
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(3, 96, 11, stride=4, padding=5),
                relu1=nn.ReLU(inplace=True),
                pool1=nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),  # as Caffe rounds
                norm1=_LocalResponseNorm(),
                conv2=nn.Conv2d(96, 256, 5, padding=2, groups=2),
                relu2=nn.ReLU(inplace=True),
                pool2=nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
                norm2=_LocalResponseNorm(),
                conv3=nn.Conv2d(256, 384, 3, padding=1),
                relu3=nn.ReLU(inplace=True),
                conv4=nn.Conv2d(384, 384, 3, padding=1, groups=2),
                relu4=nn.ReLU(inplace=True),
                conv5=nn.Conv2d(384, 256, 3, padding=1, groups=2),
                relu5=nn.ReLU(inplace=True),
                flatten=nn.Flatten(),
                fc6=nn.Linear(256 * 6 * 6, 4096),
                relu6=nn.ReLU(inplace=True),
                fc7=nn.Linear(4096, 4096),
                relu7=nn.ReLU(inplace=True),
            )
        )
