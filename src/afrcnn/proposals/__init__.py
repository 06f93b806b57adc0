"""Proposals: selective search, published files, storage, recall."""

from afrcnn.proposals.published import import_published, read_deepmask_json, read_selective_search_mat
from afrcnn.proposals.recall import recall
from afrcnn.proposals.selective_search import compute, selective_search
from afrcnn.proposals.store import Proposals, ProposalStore, WithProposals, default_folder

__all__ = [
    "ProposalStore",
    "Proposals",
    "WithProposals",
    "compute",
    "default_folder",
    "import_published",
    "read_deepmask_json",
    "read_selective_search_mat",
    "recall",
    "selective_search",
]
