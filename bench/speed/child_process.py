"""Contenders in a process of their own, as their users start it: nothing of this process's settings holds there.

Those of the allocator, and of how long idle threads spin, belong to a whole process; with ours, torchvision's steps
take a half to two thirds of the time that they take its users.
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

from bench.device.process_settings import user_environment
from bench.speed.inference import timed_call
from bench.speed.interleaved import Contender, Key

CPU = torch.device("cpu")
SPINNING = 0.05  # seconds; OpenMP's idle threads turn on the spot for up to 20 ms if nothing is set


@contextmanager
def in_own_process(make: Callable[[], Mapping[Key, Contender]], *, threads: int) -> Iterator[dict[Key, Contender]]:
    """The contenders that `make` returns there, on the CPU; their calls return the seconds that they took there.

    make: can be pickled; it is called once. threads: that torch computes with. The process lives as long as the
    context. What a call raises there is raised here, and MemoryError where the process ends before its time.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    # As bytes: sent as they are, tensors would be moved into shared memory, here too
    process = context.Process(target=_serve, args=(theirs, pickle.dumps(make), threads))
    with user_environment():
        process.start()
    theirs.close()
    try:
        described = _answer(ours, process)
        yield {
            key: Contender(call=partial(_ask, ours, process, place), batch=batch, each_round=often, timed=True)
            for place, (key, batch, often) in enumerate(described)
        }
    except BaseException:
        process.kill()
        raise
    finally:
        ours.close()
        process.join()


def _ask(connection: Connection, process: Any, place: int) -> float:
    with suppress(BrokenPipeError):  # then there is no answer either
        connection.send(place)
    seconds: float = _answer(connection, process)
    return seconds


def _answer(connection: Connection, process: Any) -> Any:
    try:
        answer = connection.recv()
    except EOFError:
        process.join()
        raise MemoryError(
            f"the process of its own that torchvision was to run in ended with {process.exitcode}; "
            "where it was killed, memory ran out"
        ) from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _serve(connection: Connection, made: bytes, threads: int) -> None:
    """What the process does: make the contenders, then time the one that is asked for, until nobody asks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks, which closes the connection
    with closing(connection):
        try:
            torch.set_num_threads(threads)
            contenders = pickle.loads(made)()
            calls = [_settled(contender.call) for contender in contenders.values()]
            connection.send([(key, contender.batch, contender.each_round) for key, contender in contenders.items()])
            while True:
                connection.send(_outcome(calls[connection.recv()]))
        except (EOFError, BrokenPipeError):
            return
        except Exception as error:
            connection.send(_sendable(error))


def _settled(call: Callable[[], object]) -> Callable[[], float]:
    """`call`, timed as one of many in a row, and the cores left to others after it.

    The system takes back what memory it gave up, while others have their turn: its users do not wait for that.
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
    """A class of the standard library: others may not arrive."""
    kind = MemoryError if isinstance(error, MemoryError) else RuntimeError
    return kind(f"{type(error).__name__}: {error}")
