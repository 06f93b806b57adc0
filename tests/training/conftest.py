"""Recipes of a few updates, and processes in which they can be trained and killed."""

import multiprocessing
import pickle
from dataclasses import replace

import pytest

from afrcnn.recipe import ScheduleRecipe

TRAIN = """
import os, pathlib, pickle, signal, torch
from afrcnn.training.train import train_stages

torch.set_num_threads(1)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

{prelude}
train_stages(pickle.loads({recipe!r}), {folder!r})
"""


@pytest.fixture(scope="session")
def recipe(recipe):
    """Six updates of two images: an epoch ends within, dropout and RoI sampling draw, a checkpoint comes every two."""
    return replace(
        recipe,
        detector=replace(recipe.detector, dropout=0.5, short_side=[48, 64], rois_per_image=8),
        schedule=ScheduleRecipe(iterations=6, learning_rate=0.01, decay_at=[4], log_every=1, checkpoint_every=2),
    )


@pytest.fixture(scope="session")
def start():
    """Starts a process that trains a recipe into a folder, after it has run ``prelude``, which may call ``die``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["afrcnn.training.train"])  # so that many can be started

    def start(recipe, folder, prelude=""):
        code = TRAIN.format(prelude=prelude, recipe=pickle.dumps(recipe), folder=str(folder))
        process = context.Process(target=exec, args=(code, {}))
        process.start()
        return process

    return start
