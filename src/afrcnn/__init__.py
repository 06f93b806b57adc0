"""afrcnn: object detectors trained against adversaries (A-Fast-RCNN, arXiv:1704.03414)."""

__version__ = "0.1.0"
