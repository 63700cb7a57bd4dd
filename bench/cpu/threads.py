"""Work shared out among the threads that torch computes with.

Threads of one's own come on top of torch's: those wait for their next work by turning on the spot for a while, and
whoever shares their core waits too. Where torch brings GNU's OpenMP library, as its packages for Linux do, the work
is given to that library's own threads; elsewhere to threads beside them.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from pathlib import Path
from typing import Any

import torch

_BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def share_out(do: Callable[[int], object], parts: int) -> None:
    """`do(part)` for each of so many parts, in as many threads as torch takes. An error in one is raised at the end."""
    threads = min(torch.get_num_threads(), parts)
    library = _openmp()
    if threads <= 1:
        _in_turn(do, range(parts))
    elif library is not None:
        _by_openmp(library, do, parts, threads)
    else:
        helpers = _helpers(torch.get_num_threads())
        begun = [helpers.submit(_in_turn, do, range(first, parts, threads)) for first in range(1, threads)]
        try:
            _in_turn(do, range(0, parts, threads))
        finally:
            wait(begun)
        for others in begun:
            others.result()


def _by_openmp(library: Any, do: Callable[[int], object], parts: int, threads: int) -> None:
    errors: list[BaseException] = []

    def body(_: object) -> None:
        try:  # what leaves this function by an error would be lost in the library
            _in_turn(do, range(library.omp_get_thread_num(), parts, library.omp_get_num_threads()))
        except BaseException as error:
            errors.append(error)

    library.GOMP_parallel(_BODY(body), None, threads, 0)
    if errors:
        raise errors[0]


def _in_turn(do: Callable[[int], object], parts: range) -> None:
    for part in parts:
        do(part)


@cache
def _openmp() -> Any:
    """GNU's OpenMP library as torch has loaded it, or None."""
    for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*")):
        try:
            library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_NOW)
            library.GOMP_parallel.argtypes = [_BODY, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
            library.GOMP_parallel.restype = None
        except (OSError, AttributeError):  # another one is in use, or it is too old
            continue
        return library
    return None


@cache
def _helpers(threads: int) -> ThreadPoolExecutor:
    """Threads beside the calling one."""
    return ThreadPoolExecutor(max(1, threads - 1), thread_name_prefix="team")
