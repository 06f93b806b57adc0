"""The stress test: AP and recall of detectors while objects are occluded or bent."""
