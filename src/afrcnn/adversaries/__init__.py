"""Adversaries that make an object's features harder to recognise (section 4.2)."""
