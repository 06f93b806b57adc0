"""A trained run to evaluate."""

import pytest

from afrcnn.training.recipe import DataRecipe, DetectorRecipe, EngineRecipe, Recipe, ScheduleRecipe
from afrcnn.training.train import train


@pytest.fixture(scope="session")
def recipe(rectangles):
    """Thirty updates, after which rectangles are found."""
    return Recipe(
        data=DataRecipe(root=str(rectangles), workers=0),
        detector=DetectorRecipe(
            backbone="small",
            pooling="roi_align",
            short_side=[64],
            long_side=64,
            rois_per_image=16,
            background_iou=(0.0, 0.5),
        ),
        schedule=ScheduleRecipe(iterations=30, learning_rate=0.01, warmup_iterations=5),
        engine=EngineRecipe(accelerator="cpu"),
    )


@pytest.fixture(scope="session")
def run(recipe, tmp_path_factory):
    """The run of the recipe; tests write elsewhere."""
    return train(recipe, tmp_path_factory.mktemp("runs") / "run")
