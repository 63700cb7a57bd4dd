"""OpenMP settings for our processes, and their removal for processes with the user's settings."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bench.device.process_settings import user_environment

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
# Sets the variables, optionally starts the script in its argument, and prints them without and with our settings
NESTED = """
import os, subprocess, sys
from bench.device.process_settings import user_environment, limit_openmp_spin
limit_openmp_spin()
if len(sys.argv) > 1:
    subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
    raise SystemExit
with user_environment():
    print([os.environ.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")])
print([os.environ.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")])
"""


@pytest.mark.parametrize("further", [[], [NESTED]], ids=["itself", "in a process that it starts"])
@pytest.mark.parametrize(
    ("given", "set_"),
    [
        ([None, None], ["PASSIVE", "20000"]),
        ([None, "7"], ["PASSIVE", "7"]),
        (["ACTIVE", None], ["ACTIVE", None]),
    ],
)
def test_only_unset_variables_are_set_and_removed(
    given: list[str | None], set_: list[str | None], further: list[str]
) -> None:
    with user_environment():
        environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    environment |= {name: value for name, value in zip(NAMES, given, strict=True) if value is not None}
    command = [sys.executable, "-c", NESTED, *further]
    shown = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    assert shown.splitlines() == [str(given), str(set_)]


def test_the_environment_is_restored() -> None:
    before = dict(os.environ)
    with user_environment():
        pass
    assert dict(os.environ) == before
