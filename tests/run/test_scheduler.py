"""A cluster that the suite itself starts is closed to other machines and to the files of the current folder."""

from __future__ import annotations

import ipaddress
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.run.scheduler import _schedule
from bench.storage.run_folder import STOP
from tests.traps import executed, set_traps


def listening() -> set[tuple[str, int]]:
    """The addresses on which this process and its children accept connections."""
    process = pytest.importorskip("psutil").Process()
    processes = [process, *process.children(recursive=True)]
    sockets = [socket for each in processes for socket in each.net_connections("inet")]
    return {tuple(socket.laddr) for socket in sockets if socket.status == "LISTEN"}


def is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.removeprefix("::ffff:")).is_loopback  # of IPv4 in a socket of IPv6


@pytest.fixture
def stopped_job(tmp_path: Path) -> Any:
    """What the scheduler reads of a job; its worker ends it at once, without a process."""
    (tmp_path / STOP).touch()
    return SimpleNamespace(run=tmp_path, cell=SimpleNamespace(numerics=SimpleNamespace(device="cpu")))


@pytest.fixture(params=["dask", "ray"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    package = {"dask": "distributed"}.get(request.param, request.param)
    if find_spec(package) is None:  # not importorskip: Ray reads its settings when it is imported
        pytest.skip(f"{package} is not installed")
    for variable in ("DASK_SCHEDULER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    yield request.param
    if request.param == "ray":
        sys.modules["ray"].shutdown()


def test_a_local_cluster_is_closed(
    backend: str, stopped_job: Any, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = set_traps(tmp_path_factory.mktemp("current"))
    monkeypatch.chdir(current)
    before = listening()
    states = _schedule([stopped_job], parallel=1, backend=backend, retries=0, stop=threading.Event())
    assert next(states) == "interrupted"  # the cluster still runs
    opened = {address for address, _ in listening() - before}
    assert opened
    assert [address for address in opened if not is_loopback(address)] == []
    assert list(states) == []
    assert executed(current) == []
