"""Where tasks run: in this process, in local worker processes, or on a Dask cluster. One interface for all three.

Each is a `concurrent.futures.Executor`. Local workers are single-threaded processes, one per core, because WARC and
HTML parsing hold the interpreter's lock; they are forked from a server that has the heavy imports done.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import forkserver
from typing import Any

from dataeng.errors import ConfigError

SINGLE_THREADED = {
    "POLARS_MAX_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "FASTOKENS_BPE_THREADS": "1",
}
PRELOAD_KERNELS = "DATAENG_PRELOAD_KERNELS"
"""How the server that workers are forked from learns which kernels to load; see `dataeng.engine.preload`."""
CONNECT_TIMEOUT = "10s"
PRELOAD = ["dataeng.engine.task", "dataeng.engine.preload"]


class InlineExecutor(Executor):
    """Runs every task at once, in this process. For debugging, tests and small jobs."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class Pool:
    """A way to get executors: the one that tasks share, and a fresh one for a task under suspicion.

    When a worker process dies, a process pool breaks and nobody can say which of the running tasks killed it. Each
    of them then runs alone, so that only the guilty one can be blamed.
    """

    def __init__(self, scheduler: str, workers: int, kernels: tuple[str, ...] = ()) -> None:
        self.scheduler, self.workers, self.kernels = scheduler, workers, kernels
        self._dask: Any = None
        self._cluster: Any = None
        self._shared: Executor | None = None

    def shared(self) -> Executor:
        if self._shared is None:
            self._shared = self._make(self.workers)
        return self._shared

    @property
    def breaks_as_one(self) -> bool:
        """Whether the death of one worker takes all running tasks with it."""
        return self.scheduler == "processes"

    def lacks_workers(self) -> bool:
        """Whether nobody is there to run a task: Dask then waits in silence for a worker, for ever if need be."""
        if self._dask is None:
            return False
        try:
            return not self._dask.nthreads()
        except OSError:  # the scheduler cannot be reached just now, which Dask deals with
            return False

    def start_workers(self) -> bool:
        """Starts as many workers again in a Dask cluster of our own; returns False where it is somebody else's.

        Dask itself starts a worker that died again, but not one that died before its nanny had heard from it.
        """
        if self._cluster is None:
            return False
        self._cluster.scale(len(self._cluster.worker_spec) + self.workers)
        return True

    def replace_broken(self) -> None:
        """Forgets the shared executor; the next call of `shared` starts a new one."""
        if self._shared is not None and self._dask is None:
            _end(self._shared)
            self._shared = None

    @contextmanager
    def alone(self) -> Iterator[Executor]:
        """An executor that no other task shares."""
        if self.scheduler != "processes":
            yield self.shared()
            return
        executor = self._make(1)
        try:
            yield executor
        finally:
            _end(executor)

    def _make(self, workers: int) -> Executor:
        if self.scheduler == "inline":
            return InlineExecutor()
        if self.scheduler == "processes":
            os.environ.update({key: os.environ.get(key, value) for key, value in SINGLE_THREADED.items()})
            os.environ[PRELOAD_KERNELS] = ",".join(self.kernels)
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(PRELOAD)
            _start_fork_server()
            return ProcessPoolExecutor(workers, mp_context=context, initializer=_ignore_interrupts)
        return self._make_dask(workers)

    def _make_dask(self, workers: int) -> Executor:
        try:
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise ConfigError("Dask needs the package 'distributed': pip install 'dataeng[dask]'") from error
        if self.scheduler == "dask":
            # Only this machine may talk to it: a Dask scheduler runs whatever it is sent.
            self._cluster = LocalCluster(
                n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, env=SINGLE_THREADED
            )
            self._dask = Client(self._cluster)
        else:
            try:
                self._dask = Client(self.scheduler, timeout=CONNECT_TIMEOUT)
            except (OSError, ValueError) as error:
                raise ConfigError(f"cannot reach the Dask scheduler {self.scheduler}: {error}") from error
            self.workers = max(1, sum(self._dask.nthreads().values()))  # the cluster's, not this machine's
        executor: Executor = self._dask.get_executor(pure=False, retries=0)
        return executor

    def close(self) -> None:
        """Ends all workers that it started, at once, whatever they are doing. Safe to call twice."""
        if self._shared is not None:
            _end(self._shared)
            self._shared = None
        if self._dask is not None:
            self._dask.close()
            self._dask = None
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None


def _end(executor: Executor) -> None:
    """Ends an executor without waiting for its tasks: what they have not committed, a later run does again."""
    if not isinstance(executor, ProcessPoolExecutor):
        executor.shutdown(wait=False)
        return
    # Python 3.14 has `kill_workers`; before, there is no public way to reach the processes.
    processes = list((executor._processes or {}).values())
    executor.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()
    for process in processes:
        process.join()


def _start_fork_server() -> None:
    """Starts the process that workers are forked from so that Ctrl-C does not reach it while it imports."""
    if threading.current_thread() is not threading.main_thread():
        forkserver.ensure_running()  # signals are the main thread's to set
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)


def _ignore_interrupts() -> None:
    """Leaves Ctrl-C, which reaches every process of a terminal, to the driver: it ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def check_scheduler(scheduler: str) -> None:
    """Raises `ConfigError` unless ``scheduler`` is one that we know."""
    if scheduler not in ("inline", "processes", "dask") and "://" not in scheduler:
        raise ConfigError(
            f"unknown scheduler '{scheduler}'; expected inline, processes, dask (starts a local cluster), "
            "or the address of a running one, e.g. tcp://host:8786"
        )
