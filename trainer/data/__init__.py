"""From packs to batches: which rows, in which order, read ahead."""
