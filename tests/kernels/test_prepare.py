"""What stages say that they call can be compiled before workers start."""

from __future__ import annotations

from dataeng.kernels import KERNELS
from dataeng.report.catalogue import stage_class
from dataeng.stages import STAGES


def test_every_kernel_that_a_stage_names_is_known() -> None:
    named = {kernel for name in STAGES for kernel in stage_class(name).kernels}
    assert named - set(KERNELS) == set() and "extended_signals" in named
