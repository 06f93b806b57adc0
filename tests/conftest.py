"""Fixtures that several packages' tests share."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photographs and weights, beside the checkout or named by AFRCNN_SHARED."""
    folder = Path(os.environ.get("AFRCNN_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no real photographs: {folder} is absent (AFRCNN_SHARED names another folder)")
    return folder
