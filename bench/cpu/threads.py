"""A parallel loop that runs in torch's own threads if possible.

Other threads would compete with torch's, which spin for a while after each layer. If torch has loaded GNU's OpenMP
library, as its Linux packages do, the loop runs in that library's threads; otherwise in a thread pool.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache

import torch

from bench.device.private_interfaces import OpenMP, openmp_library


def parallel_for(body: Callable[[int], object], parts: int) -> None:
    """Call `body(part)` for each part from 0, in as many threads as torch uses. Raises the first error at the end."""
    threads = min(torch.get_num_threads(), parts)
    library = openmp_library()
    if threads <= 1:
        _run(body, range(parts))
    elif library is not None:
        _run_in_openmp(library, body, parts, threads)
    else:
        _run_in_pool(body, parts, threads)


def _run(body: Callable[[int], object], parts: range) -> None:
    for part in parts:
        body(part)


def _run_in_openmp(library: OpenMP, body: Callable[[int], object], parts: int, threads: int) -> None:
    errors: list[BaseException] = []

    def run_share(thread: int, team_size: int) -> None:
        try:  # the library would lose the error
            _run(body, range(thread, parts, team_size))
        except BaseException as error:
            errors.append(error)

    library.parallel(run_share, threads)
    if errors:
        raise errors[0]


def _run_in_pool(body: Callable[[int], object], parts: int, threads: int) -> None:
    pool = _pool(torch.get_num_threads())
    futures = [pool.submit(_run, body, range(first, parts, threads)) for first in range(1, threads)]
    try:
        _run(body, range(0, parts, threads))
    finally:
        wait(futures)
    for future in futures:
        future.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """The threads that work in addition to the calling one."""
    return ThreadPoolExecutor(max(1, threads - 1), thread_name_prefix="cpu-kernels")
