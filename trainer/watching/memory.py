"""The most memory that a run has needed so far."""

from __future__ import annotations

import resource
import sys

import torch


def peak_memory_bytes(device: torch.device) -> int:
    """Returns the most bytes that were in use at once since the process began.

    On a GPU, those of its tensors (``max_memory_allocated``: what is reserved for later ones is not counted); on the
    CPU, the process's resident set, with everything that is loaded, and pages of packs that were read among it.
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # Linux counts in kibibytes
