"""Decorators that compile loops, and the cache folder for the machine code.

numba's cache key covers only the file that defines a function, not the functions and constants of other files that are
compiled into it. So the cache folder is named after the content of all files here: any change invalidates everything.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numba


def cache_folder(sources: Path, parent: Path) -> Path:
    """The folder in `parent` for machine code compiled from the current files of `sources`."""
    digest = hashlib.sha256()
    for file in sorted(sources.glob("*.py")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return parent / f"compiled-{digest.hexdigest()[:12]}"


_HERE = Path(__file__).parent
_settings: Any = numba.config
_settings.CACHE_DIR = str(cache_folder(_HERE, Path(_settings.CACHE_DIR or _HERE / "__pycache__")))

entry_point: Any = partial(numba.njit, nogil=True, cache=True)  # called from Python
internal: Any = partial(entry_point, no_cpython_wrapper=True, no_cfunc_wrapper=True)  # called by other loops only
inlined: Any = partial(internal, forceinline=True)  # so that arguments need not be passed through memory
