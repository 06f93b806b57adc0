"""The stress test: what detectors still find when objects are hidden or bent."""

from afrcnn.robustness.benchmark import Detector, stress_run, stress_test
from afrcnn.robustness.stress_results import Curve, LevelResults, StressResults, read_stress, write_stress
from afrcnn.robustness.stresses import Bending, Occlusion, Stress

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
