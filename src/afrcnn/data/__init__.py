"""Detection datasets: their layouts, what is done to their images, and a generated set."""
