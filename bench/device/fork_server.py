"""The fork server: a process that has torch imported, from which the processes of all cells are forked."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext, SpawnContext

from bench.device.module_path import home_on_path, protect_multiprocessing

_starting = threading.Lock()  # cells start from several threads, but the environment belongs to the process


def start_fork_server(*, cpu_kernels: bool) -> ForkServerContext | SpawnContext:
    """Start the fork server if it does not run yet; the context in which to start processes.

    Does not wait for the server: it imports while the caller reads the data. On macOS, where forking is unsafe, every
    process starts from scratch instead.

    cpu_kernels: whether cells use CPU kernels; the server then starts their compiler too.
    """
    protect_multiprocessing()
    if sys.platform == "darwin":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.run.preload" if cpu_kernels else "bench.run.cell"])
    # Before Python 3.13 the server does not get its parent's path, and silently skips modules that it cannot import
    with _starting, home_on_path(), _sigint_blocked():
        forkserver.ensure_running()
    return context


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Processes started in this context ignore Ctrl-C; their parent ends them."""
    resource_tracker.ensure_running()  # starting it unblocks SIGINT, so start it first
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
