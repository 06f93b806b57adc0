"""The HTML page of runs and its sections."""
