"""Run every cell in its own fresh process, several in parallel, on this machine or on a cluster.

joblib, Dask or Ray only schedule: each of their tasks supervises one process. So a cell that crashes, hangs, runs out
of memory or is killed harms no other cell, and leaves a record of its failure.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

from joblib import Parallel, delayed

from bench.device.fork_server import start_fork_server
from bench.device.process_settings import environment_variable
from bench.errors import UserError
from bench.run.cell import CellJob, identity_of, run_cell
from bench.storage.atomic import write_json
from bench.storage.lock import lock_cell_folder
from bench.storage.records import failed_record, read_log, read_record
from bench.storage.run_folder import LOG, OUTPUT, RECORD, STOP

POLL_SECONDS = 0.2
GRACE_SECONDS = 5.0
LONGEST_POLL_SECONDS = 5.0  # if more has passed, we were suspended ourselves, by Ctrl-Z or a batch system
LAST_LINES = 40  # of the output of a process that hung or crashed: the stacks of its threads
LOOPBACK = "127.0.0.1"


def run_jobs(
    jobs: Sequence[CellJob],
    *,
    parallel: int,
    backend: str,
    retries: int,
    watch: Callable[[], None],
) -> None:
    """Run all jobs, `parallel` at a time; each leaves a record, whether it succeeds or fails.

    watch: called a few times per second in the calling thread, to show the progress.
    An exception in `watch` and KeyboardInterrupt stop all cells within seconds and are raised again.
    """
    stop = threading.Event()
    failure: list[BaseException] = []
    stop_files = {job.run / STOP for job in jobs}
    for file in stop_files:
        file.unlink(missing_ok=True)

    def consume() -> None:
        try:
            for _ in _schedule(jobs, parallel=parallel, backend=backend, retries=retries, stop=stop):
                pass
        except BaseException as error:  # raised again in the calling thread
            failure.append(error)
            stop.set()

    scheduler = threading.Thread(target=consume, name="scheduler")
    scheduler.start()
    try:
        while scheduler.is_alive():
            watch()
            scheduler.join(POLL_SECONDS)
    except BaseException:
        stop.set()
        with suppress(OSError):  # a full disk; threads of this process have the event
            for file in stop_files:
                file.touch()
        scheduler.join()
        for file in stop_files:
            file.unlink(missing_ok=True)
        raise
    watch()
    if failure:
        raise failure[0]


def supervise(job: CellJob, retries: int, stopped: Callable[[], bool] = lambda: False) -> str:
    """Run the job in its own process until it has a record; returns the record's status.

    Ends the process if its log does not change for `job.hung_after` seconds, or if `stopped` returns True.
    retries: how often a failed job runs again.
    """
    status = "failed"
    for _attempt in range(retries + 1):
        if stopped():
            return "interrupted"
        process = start_fork_server(cpu_kernels=job.cell.numerics.cpu_kernels).Process(
            target=_cell_process, args=(job,), name=f"cell {job.cell.variant}"
        )
        (job.folder / RECORD).unlink(missing_ok=True)
        process.start()
        outcome = _wait(process, job, stopped)
        if outcome == "interrupted":
            return outcome
        record = read_record(job.run, job.cell.id)
        if record is None:
            cause = _cause_of_hang(job) if outcome == "hung" else _cause_of_death(process.exitcode)
            record = failed_record(
                identity_of(job.cell), cause=cause, folder=job.folder, traceback=_last_output(job.folder)
            )
            write_json(job.folder / RECORD, record)
        status = str(record["status"])
        if status == "done":
            break
    return status


def _wait(process: BaseProcess, job: CellJob, stopped: Callable[[], bool]) -> Literal["ended", "hung", "interrupted"]:
    """Wait until the process ends, or end it because it hangs or `stopped` returns True."""
    progress, waited, polled = _progress(job), 0.0, time.monotonic()
    while process.is_alive() and waited <= job.hung_after:
        if stopped():
            _end(process)
            return "interrupted"
        process.join(POLL_SECONDS)
        before, polled = polled, time.monotonic()
        waited += min(polled - before, LONGEST_POLL_SECONDS)
        if progress != (progress := _progress(job)):
            waited = 0.0
    if waited <= job.hung_after:
        return "ended"
    _dump_stacks(process)
    _end(process)
    return "hung"


def _schedule(
    jobs: Sequence[CellJob], *, parallel: int, backend: str, retries: int, stop: threading.Event
) -> Iterator[str]:
    """The status of each cell when it ends."""
    if backend == "dask":
        from distributed import Client, as_completed  # noqa: PLC0415

        address = os.environ.get("DASK_SCHEDULER_ADDRESS")
        here: dict[str, Any] = {
            # Threads, as below; and a daemonic worker process could not start processes
            "processes": False,
            "n_workers": 1,
            "threads_per_worker": parallel,
            # HTTP servers without passwords, which otherwise listen on all interfaces
            "dashboard_address": f"{LOOPBACK}:0",
            "worker_dashboard_address": f"{LOOPBACK}:0",
            "scheduler_kwargs": {"dashboard": False},
        }
        with Client(address) if address else Client(**here) as client:
            futures = [client.submit(_supervise_elsewhere, job, retries, pure=False) for job in jobs]
            for future in as_completed(futures):
                yield future.result()
    elif backend == "ray":
        ray = _connected_ray(parallel)
        # Ray hides the GPUs from tasks that do not request one
        devices = {job.cell.numerics.device for job in jobs}
        remote = ray.remote(num_cpus=1, num_gpus=1 if "cuda" in devices else 0)(_supervise_in_ray(str(Path.cwd())))
        waiting = [remote.remote(pickle.dumps(job), retries) for job in jobs]
        while waiting:
            ready, waiting = ray.wait(waiting)
            yield from ray.get(ready)
    else:
        # Threads, since each task only waits for its process; a killed loky worker would end the whole call.
        yield from Parallel(n_jobs=parallel, backend="threading", return_as="generator_unordered")(
            delayed(supervise)(job, retries, stop.is_set) for job in jobs
        )


def _connected_ray(parallel: int) -> Any:
    """The module `ray`, connected to the cluster of RAY_ADDRESS, or to a new one of `parallel` CPUs on this machine."""
    if (os.environ.get("RAY_ADDRESS") or "local") != "local":
        import ray  # noqa: PLC0415

        ray.init(ignore_reinit_error=True)
        return ray
    # Read when Ray is imported; 0 is the default on macOS. Ray then listens on loopback only. On Linux it would listen
    # on all interfaces, also with `_node_ip_address="127.0.0.1"`, which it replaces.
    with environment_variable("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0"):
        import ray  # noqa: PLC0415

        ray.init("local", num_cpus=parallel, include_dashboard=False, ignore_reinit_error=True)
    return ray


def _supervise_in_ray(folder: str) -> Callable[[bytes, int], str]:
    """`_supervise_elsewhere` of a pickled job, for a worker of Ray. folder: the current folder of this process.

    Ray puts that folder before all others on its workers' path. The function is sent by value, as it is local, so that
    a worker imports nothing before it has removed the folder.
    """
    wanted = folder in sys.path

    def supervise_pickled(job: bytes, retries: int) -> str:
        if not wanted:
            sys.path[:] = [entry for entry in sys.path if entry != folder]
        from bench.run import scheduler  # noqa: PLC0415, PLW0406  (the worker has not imported it)

        return scheduler._supervise_elsewhere(pickle.loads(job), retries)

    return supervise_pickled


def _supervise_elsewhere(job: CellJob, retries: int) -> str:
    """`supervise` in a worker of a cluster, which shares the run's folder but not our memory."""
    if multiprocessing.current_process().daemon:
        raise UserError(
            "this Dask worker is daemonic and cannot start processes, but every cell needs its own: start workers with "
            "--no-nanny, or set DASK_DISTRIBUTED__WORKER__DAEMON=False in their environment"
        )
    return supervise(job, retries, (job.run / STOP).exists)


def _cell_process(job: CellJob) -> None:
    """The process of a cell. Its output goes to a file; Ctrl-C is left to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    job.folder.mkdir(parents=True, exist_ok=True)
    lock_cell_folder(job.folder)
    output = os.open(job.folder / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    faulthandler.enable(2)
    faulthandler.register(signal.SIGUSR1, 2)
    run_cell(job)
    sys.stdout.flush()


def _die_with_parent() -> None:
    """End this process with its parent: an orphan would write into a folder that the next run uses."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _progress(job: CellJob) -> tuple[int, int]:
    """Time and size of the log, only to be compared for equality: its clock may be another machine's."""
    try:
        state = (job.folder / LOG).stat()
    except OSError:
        return 0, 0
    return state.st_mtime_ns, state.st_size


def _dump_stacks(process: BaseProcess) -> None:
    """Make the process print the stacks of its threads, if it still can."""
    if process.is_alive() and process.pid is not None:
        os.kill(process.pid, signal.SIGUSR1)
        process.join(1.0)


def _end(process: BaseProcess) -> None:
    process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    while process.is_alive() and time.monotonic() < deadline:
        process.join(POLL_SECONDS)
    if process.is_alive():
        process.kill()
    process.join()


def _cause_of_hang(job: CellJob) -> str:
    phases = [line["phase"] for line in read_log(job.folder / LOG) if "phase" in line]
    phase = phases[-1] if phases else "starting"
    return f"hung: no progress for {job.hung_after / 60:g} minutes while {phase} (--hung-after)"


def _cause_of_death(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else str(-code)
        hint = "; the machine may have run out of memory" if name == "SIGKILL" else ""
        return f"the process was ended by {name}{hint}"
    return f"the process ended with status {code} and left no record"


def _last_output(folder: Path) -> str | None:
    """The last lines that the process printed."""
    try:
        return "\n".join((folder / OUTPUT).read_text(errors="replace").splitlines()[-LAST_LINES:]) or None
    except FileNotFoundError:
        return None
