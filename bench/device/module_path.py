"""What the Python processes started by this one can import.

`python -c` and `python -m` put the current folder before all others on the module path. multiprocessing and loky start
their processes in this way. Without the settings made here, a file `numpy.py` or a folder `bench/` in the folder where
the user happens to be would be executed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from bench.device.private_interfaces import add_interpreter_option
from bench.device.process_settings import environment_variable
from bench.options import HOME

_SAFE_PATH = "PYTHONSAFEPATH"  # has the effect of the option -P; inherited by all further processes


def protect_multiprocessing() -> None:
    """Keep the current folder off the module path of every process that multiprocessing starts from now on.

    These are the fork server, processes by "spawn", and the resource tracker, which starts with the first lock, also
    with one of another library. An option does this, not the environment, which would also change programs that a
    user's axis file starts.
    """
    if not add_interpreter_option("-P"):
        os.environ[_SAFE_PATH] = "1"


@contextmanager
def safe_path() -> Iterator[None]:
    """Keep the current folder off the module path of every Python process started in this context, by any library."""
    with environment_variable(_SAFE_PATH, "1"):
        yield


@contextmanager
def home_on_path() -> Iterator[None]:
    """Let Python processes started in this context find our packages, in whatever folder they start."""
    before = os.environ.get("PYTHONPATH")
    with environment_variable("PYTHONPATH", os.pathsep.join([str(HOME), *([before] if before else [])])):
        yield
