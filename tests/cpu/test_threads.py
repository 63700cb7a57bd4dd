"""`parallel_for` in torch's OpenMP threads and in a thread pool."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from bench.cpu import threads
from bench.device.private_interfaces import openmp_library


@pytest.fixture(params=["OpenMP", "thread pool"])
def three_threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param == "OpenMP" and openmp_library() is None:
        pytest.skip("torch has not loaded GNU's OpenMP library")
    if request.param != "OpenMP":
        monkeypatch.setattr(threads, "openmp_library", lambda: None)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("parts", [0, 1, 2, 3, 8])
def test_each_part_runs_once(parts: int) -> None:
    done: list[int] = []
    threads.parallel_for(done.append, parts)
    assert sorted(done) == list(range(parts))


@pytest.mark.usefixtures("three_threads")
def test_parts_run_in_parallel() -> None:
    barrier = threading.Barrier(3, timeout=30)
    threads.parallel_for(lambda _: barrier.wait(), 3)
    assert not barrier.broken


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_in_one_thread_is_raised_after_the_others_end(failing: int) -> None:
    done: list[int] = []

    def body(part: int) -> None:
        if part == failing:
            raise KeyError(part)
        done.append(part)

    with pytest.raises(KeyError):
        threads.parallel_for(body, 3)
    if failing != 0:
        assert 0 in done


@pytest.mark.usefixtures("three_threads")
def test_torch_still_works_afterwards() -> None:
    a = torch.rand(300, 300)
    expected = a @ a
    threads.parallel_for(lambda _: None, 3)
    assert torch.equal(a @ a, expected)
