"""Adversaries that make an object's features harder (section 4.2)."""

from afrcnn.adversaries.asdn import ASDN, ConvolutionalASDN, FullyConnectedASDN
from afrcnn.adversaries.astn import ASTN, LocalisationNetwork
from afrcnn.adversaries.base import Adversary, DetachedHead, Hardened, RoIHead
from afrcnn.adversaries.chain import Chain
from afrcnn.adversaries.dropblock import DropBlock
from afrcnn.adversaries.dropout import HardDropout, RandomDropout
from afrcnn.adversaries.mask_sampling import MaskSampling, WindowSampling
from afrcnn.adversaries.occluder import Occluder
from afrcnn.detectors.seam import Seam

__all__ = [
    "ASDN",
    "ASTN",
    "Adversary",
    "Chain",
    "ConvolutionalASDN",
    "DetachedHead",
    "DropBlock",
    "FullyConnectedASDN",
    "HardDropout",
    "Hardened",
    "LocalisationNetwork",
    "MaskSampling",
    "Occluder",
    "RandomDropout",
    "RoIHead",
    "Seam",
    "WindowSampling",
]
