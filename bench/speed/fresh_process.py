"""Call a function in a process of its own, forked from the server that cells are forked from.

The process has this suite's settings, as a cell has; `child_process` is for contenders with their users' settings.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TypeVar

from bench.device.fork_server import start_fork_server
from bench.errors import UserError

Answer = TypeVar("Answer")


def in_fresh_process(
    function: Callable[..., Answer], *arguments: object, cpu_kernels: bool, most_seconds: float | None = None
) -> Answer | None:
    """What `function` returns for `arguments`; None if the process died, most likely because memory ran out.

    function, arguments: must be picklable, as must the answer. cpu_kernels: see `start_fork_server`.
    most_seconds: after which the process is ended; None for no limit.
    Raises RuntimeError with the kind and text of an error of the function, TimeoutError if the time was up.
    """
    # A child by exec would inherit its parent's peak of memory; a child of the fork server does not
    context = start_fork_server(cpu_kernels=cpu_kernels)
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(sender, function, arguments), daemon=True)
    child.start()
    sender.close()
    answer: Answer | Exception | None = None
    try:
        if not receiver.poll(most_seconds):
            raise TimeoutError(f"no answer within {most_seconds} s")
        with suppress(EOFError):
            answer = receiver.recv()
    except BaseException:  # also Ctrl-C, which the child ignores
        child.kill()
        raise
    finally:
        receiver.close()
        child.join()
    if isinstance(answer, Exception):
        raise answer
    return answer


def _answer(sender: Connection, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    """The fresh process: send the answer or the error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answer: object
    try:
        answer = function(*arguments)
    except Exception as error:  # raised by the parent; as a built-in exception, since others may not be picklable
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        answer = RuntimeError(f"{kind}{error}")
    with suppress(BrokenPipeError), sender:
        sender.send(answer)
