"""File formats: leaf modules that `dataeng` and `trainer` share. Nothing here imports the rest of either."""
