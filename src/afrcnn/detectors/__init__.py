"""Detectors, and the seam where adversaries meet them."""
