"""Proposals: selective search, published files, storage, recall."""
