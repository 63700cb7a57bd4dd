"""How loops are compiled, and where what was compiled is kept for the next process.

numba keeps a loop by the contents of its own file, whatever has become of the loops and numbers of other files that are
compiled into it. So here all of this folder is kept by the contents of all of it: what runs is what is written.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numba


def folder_for(sources: Path, within: Path) -> Path:
    """Where within a folder that is kept which is compiled from the files of `sources` as they are now."""
    digest = hashlib.sha256()
    for file in sorted(sources.glob("*.py")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return within / f"compiled-{digest.hexdigest()[:12]}"


_HERE = Path(__file__).parent
_settings: Any = numba.config
_settings.CACHE_DIR = str(folder_for(_HERE, Path(_settings.CACHE_DIR or _HERE / "__pycache__")))

outer: Any = partial(numba.njit, nogil=True, cache=True)  # what Python calls
inner: Any = partial(outer, no_cpython_wrapper=True, no_cfunc_wrapper=True)  # what other loops alone call
inlined: Any = partial(inner, forceinline=True)  # and whose arguments would go through memory
