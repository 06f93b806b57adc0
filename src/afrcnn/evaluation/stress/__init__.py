"""The stress test: what detectors still find when objects are hidden or bent."""

from afrcnn.evaluation.stress.benchmark import Detector, stress_run, stress_test
from afrcnn.evaluation.stress.results import Curve, LevelResults, StressResults, read_stress, write_stress
from afrcnn.evaluation.stress.stresses import Bending, Occlusion, Stress

__all__ = [
    "Bending",
    "Curve",
    "Detector",
    "LevelResults",
    "Occlusion",
    "Stress",
    "StressResults",
    "read_stress",
    "stress_run",
    "stress_test",
    "write_stress",
]
