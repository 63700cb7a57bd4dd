"""CI installs the packages that tests need, so that few tests are skipped there for the lack of one."""

from __future__ import annotations

import re
import tomllib

from tests.conftest import REPOSITORY

# Ray in a worker of pytest-xdist ended that worker, and pytest-xdist then waited for ever.
LEFT_OUT = {"ray"}


def test_the_checks_install_every_extra_but_ray() -> None:
    """Tests use all extras: `oracles` to compare with, `dask` and `ray` as backends."""
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        extras: dict[str, list[str]] = tomllib.load(file)["project"]["optional-dependencies"]
    (listed,) = re.findall(r"-e '\.\[([\w,]+)\]'", (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8"))
    installed = set(listed.split(","))
    for extra in listed.split(","):
        installed.update(*(re.findall(r"^ssd-ablation\[(\w+)\]$", package) for package in extras[extra]))
    assert installed == set(extras) - LEFT_OUT
