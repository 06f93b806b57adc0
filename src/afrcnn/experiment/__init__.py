"""Methods compared on one dataset: the same start, the same schedule, differences with their intervals."""
