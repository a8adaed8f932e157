"""What the losses of every domain and the controller cost of a training step.

    python tests/benchmarks/channels.py [--data DIR] [--preset small] [--domains 4 16 64 256] [--device cuda]

*The step as a whole*: a plain loop over the same model, loader, optimizer and chunked loss, whose loss is one mean, one
number a step, beside the run's own step with K domains (sums, controller, multipliers, record). One step of each in
turn, medians. The difference of two such numbers is noisy: a per cent of a step is less than what steps vary by.

*The parts alone*: the time within the functions that only exist for domains, called by the very same steps, over the
step's. That is what is to stay below 1 %. On a GPU each part is measured with everything before it done.

The plain loop knows the weight of every token (1 / N) before its forward pass; so does the run with ``--reweighting
none``, and not with the controller's default, which weights a step by its own losses: ``same step`` below. On a CPU,
processor time of one thread. The last line has ``key=value`` figures.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

