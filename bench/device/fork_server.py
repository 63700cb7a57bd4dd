"""The server from which the cells' processes are forked, with all that they need imported."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext, SpawnContext

from bench.options import HOME

_starting = threading.Lock()  # cells are started from several threads, and the environment is one


def fresh_processes(*, cpu_kernels: bool) -> ForkServerContext | SpawnContext:
    """A way to start fresh processes: from a server that has torch loaded; anew where forking is unsafe.

    The first call starts the server and does not wait for it, so that it imports while its caller reads data.

    cpu_kernels: whether the cells use CPU kernels; the server then starts their compiler.
    """
    if sys.platform == "darwin":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.run.preload" if cpu_kernels else "bench.run.cell"])
    with _starting, _importable(), _deaf():
        forkserver.ensure_running()
    return context


@contextmanager
def _importable() -> Iterator[None]:
    """Let a new interpreter find our packages wherever it was started.

    Before Python 3.13 the server does not get its parent's path, and leaves out in silence what it cannot import.
    """
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HOME), *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@contextmanager
def _deaf() -> Iterator[None]:
    """A process started in here does not hear Ctrl-C: it is its parent that ends it."""
    resource_tracker.ensure_running()  # where that is to be started first, it ends with Ctrl-C let through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
