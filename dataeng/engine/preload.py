"""Imported once by the server that workers are forked from, so that every worker starts with it done.

The one module that does something at import: it loads the compiled kernels from their cache.
"""

import os

from dataeng import kernels
from dataeng.engine.executor import PRELOAD_KERNELS

kernels.prepare([name for name in os.environ.get(PRELOAD_KERNELS, "").split(",") if name])
