"""Run contenders in a child process as their users would, without this suite's process settings.

The settings of the allocator and of OpenMP apply to a whole process. With ours, torchvision's training steps take half
to two thirds of the time that its users see.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch

from bench.device.clock import timed_call
from bench.device.module_path import protect_multiprocessing
from bench.device.process_settings import user_environment
from bench.speed.interleaved import Contender, Key

CPU = torch.device("cpu")
SPINNING = 0.05  # seconds; idle OpenMP threads spin for up to 20 ms by default


@contextmanager
def in_child_process(make: Callable[[], Mapping[Key, Contender]], *, threads: int) -> Iterator[dict[Key, Contender]]:
    """The contenders that `make` returns in a child process, on the CPU. Their calls return the seconds taken there.

    make: must be picklable; it is called once. threads: for torch. The process lives as long as the context. Errors of
    the calls are raised here; MemoryError if the process dies.
    """
    protect_multiprocessing()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    # Pickle here: multiprocessing's own pickler would move our tensors into shared memory
    process = context.Process(target=_serve, args=(theirs, pickle.dumps(make), threads))
    with user_environment():
        process.start()
    theirs.close()
    try:
        described = _receive(ours, process)
        yield {
            key: Contender(call=partial(_request, ours, process, place), batch=batch, calls_per_round=calls, timed=True)
            for place, (key, batch, calls) in enumerate(described)
        }
    except BaseException:
        process.kill()
        raise
    finally:
        ours.close()
        process.join()


def _request(connection: Connection, process: Any, place: int) -> float:
    with suppress(BrokenPipeError):  # the process is dead, which `_receive` reports
        connection.send(place)
    seconds: float = _receive(connection, process)
    return seconds


def _receive(connection: Connection, process: Any) -> Any:
    try:
        answer = connection.recv()
    except EOFError:
        process.join()
        raise MemoryError(
            f"the child process that runs torchvision ended with exit code {process.exitcode}; "
            "if it was killed (-9), memory ran out"
        ) from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _serve(connection: Connection, made: bytes, threads: int) -> None:
    """The child process: make the contenders, then time the requested one until the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent closes the connection
    with closing(connection):
        try:
            torch.set_num_threads(threads)
            contenders = pickle.loads(made)()
            calls = [_steady(contender.call) for contender in contenders.values()]
            connection.send(
                [(key, contender.batch, contender.calls_per_round) for key, contender in contenders.items()]
            )
            while True:
                connection.send(_outcome(calls[connection.recv()]))
        except (EOFError, BrokenPipeError):
            return
        except Exception as error:
            connection.send(_sendable(error))


def _steady(call: Callable[[], object]) -> Callable[[], float]:
    """`call`, timed as one of many in a row, after which no idle thread occupies a core.

    While other contenders run, the system reclaims memory that this process gave up. Users never see that delay, so an
    untimed call comes first.
    """
    timed = timed_call(call, CPU)

    def both() -> float:
        timed()
        seconds = timed()
        time.sleep(SPINNING)
        return seconds

    return both


def _outcome(call: Callable[[], float]) -> float | Exception:
    try:
        return call()
    except Exception as error:
        return _sendable(error)


def _sendable(error: Exception) -> Exception:
    """The error as a built-in exception; others may not be picklable."""
    kind = MemoryError if isinstance(error, MemoryError) else RuntimeError
    return kind(f"{type(error).__name__}: {error}")
