"""Work shared among the threads that torch computes with.

Threads of our own would compete with torch's, which spin for a while after each layer. So where torch has loaded GNU's
OpenMP library (its Linux packages do), the work runs in that library's threads; elsewhere in a thread pool.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any

import torch

from bench.device.private_interfaces import OpenMPBody, openmp_library


def parallel_for(do: Callable[[int], object], parts: int) -> None:
    """Call `do(part)` for each part from 0, in as many threads as torch uses. Raises an error of a part at the end."""
    threads = min(torch.get_num_threads(), parts)
    library = openmp_library()
    if threads <= 1:
        _run(do, range(parts))
    elif library is not None:
        _run_in_openmp(library, do, parts, threads)
    else:
        _run_in_pool(do, parts, threads)


def _run(do: Callable[[int], object], parts: range) -> None:
    for part in parts:
        do(part)


def _run_in_openmp(library: Any, do: Callable[[int], object], parts: int, threads: int) -> None:
    errors: list[BaseException] = []

    def body(_: object) -> None:
        try:  # the library would swallow an exception
            _run(do, range(library.omp_get_thread_num(), parts, library.omp_get_num_threads()))
        except BaseException as error:
            errors.append(error)

    library.GOMP_parallel(OpenMPBody(body), None, threads, 0)
    if errors:
        raise errors[0]


def _run_in_pool(do: Callable[[int], object], parts: int, threads: int) -> None:
    helpers = _helpers(torch.get_num_threads())
    begun = [helpers.submit(_run, do, range(first, parts, threads)) for first in range(1, threads)]
    try:
        _run(do, range(0, parts, threads))
    finally:
        wait(begun)
    for others in begun:
        others.result()


@cache
def _helpers(threads: int) -> ThreadPoolExecutor:
    """Threads beside the calling one."""
    return ThreadPoolExecutor(max(1, threads - 1), thread_name_prefix="cpu-kernels")
