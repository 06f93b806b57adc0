"""Adversaries that make an object's features harder (section 4.2)."""

from afrcnn.adversary.asdn import ASDN, ConvolutionalASDN, FullyConnectedASDN
from afrcnn.adversary.astn import ASTN, LocalisationNetwork
from afrcnn.adversary.chain import Chain
from afrcnn.adversary.contract import Adversary, DetachedHead, Hardened, RoIHead
from afrcnn.adversary.dropblock import DropBlock
from afrcnn.adversary.dropout import HardDropout, RandomDropout
from afrcnn.adversary.mask_sampling import MaskSampling, WindowSampling
from afrcnn.adversary.occluder import Occluder
from afrcnn.adversary.seam import Seam

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
