"""Imported once by the server that workers are forked from, so that every worker starts with it done.

The one module that does something at import: it loads the compiled kernels from their cache.
"""

from dataeng import kernels

kernels.prepare()
