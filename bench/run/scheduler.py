"""Execution: every cell in a fresh process of its own, several at a time, here or on a cluster.

joblib (or Dask, or Ray) only schedules: each of its tasks supervises one process. So a cell that
crashes, hangs, runs out of memory or is killed takes nothing else with it, and leaves a record that says so.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

from joblib import Parallel, delayed

from bench.device.fork_server import fresh_processes
from bench.errors import UserError, nearest
from bench.run.cell import CellJob, identity_of, run_cell
from bench.storage.atomic import write_json
from bench.storage.lock import lock_cell_folder
from bench.storage.records import failed_record, read_log, read_record

BACKENDS = ("loky", "dask", "ray")
POLL_SECONDS = 0.2
GRACE_SECONDS = 5.0
LONGEST_LOOK_SECONDS = 5.0  # more has passed where we were stopped ourselves, by Ctrl-Z or a batch system
STOPPING = "stopping"  # a file in the run's folder: workers that may be on other machines are to stop
LAST_LINES = 40  # of what a process printed: where it hung or crashed, in all threads


def run_jobs(
    jobs: Sequence[CellJob],
    *,
    parallel: int,
    backend: str,
    retries: int,
    watch: Callable[[], None],
) -> None:
    """Run all jobs, `parallel` at a time; each ends with a record, of success or of failure.

    watch: called a few times a second in the calling thread, to show how things stand.
    KeyboardInterrupt stops all cells within seconds and is passed on.
    """
    stop = threading.Event()
    failure: list[BaseException] = []
    flags = {job.run / STOPPING for job in jobs}
    for flag in flags:
        flag.unlink(missing_ok=True)

    def consume() -> None:
        try:
            for _ in _schedule(jobs, parallel=parallel, backend=backend, retries=retries, stop=stop):
                pass
        except BaseException as error:  # handed to the calling thread
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
        with suppress(OSError):  # a disk that is full; threads here have the event
            for flag in flags:
                flag.touch()
        scheduler.join()
        for flag in flags:
            flag.unlink(missing_ok=True)
        raise
    watch()
    if failure:
        raise failure[0]


def check_backend(backend: str) -> None:
    """Raise UserError if a backend is unknown or not installed."""
    if backend not in BACKENDS:
        raise UserError(f"--backend {backend}: there are {', '.join(BACKENDS)}{nearest(backend, BACKENDS)}")
    module = {"dask": "distributed", "ray": "ray"}.get(backend)
    if module is not None:
        try:
            __import__(module)
        except ImportError:
            raise UserError(f"--backend {backend} needs a package: pip install 'ssd-ablation[{backend}]'") from None


def supervise(job: CellJob, retries: int, stopped: Callable[[], bool] = lambda: False) -> str:
    """Run the job in a process of its own until it has a record; returns the record's status.

    A process whose log does not change for `job.hung_after` seconds is ended, and each when `stopped` says so.
    """
    status = "failed"
    for _attempt in range(retries + 1):
        if stopped():
            return "interrupted"
        process = fresh_processes(cpu_kernels=job.cell.numerics.cpu_kernels).Process(
            target=_in_own_process, args=(job,), name=f"cell {job.cell.variant}"
        )
        (job.folder / "record.json").unlink(missing_ok=True)
        process.start()
        progress, waited, looked = _progress(job), 0.0, time.monotonic()
        while process.is_alive() and waited <= job.hung_after:
            if stopped():
                _end(process)
                return "interrupted"
            process.join(POLL_SECONDS)
            before, looked = looked, time.monotonic()
            waited += min(looked - before, LONGEST_LOOK_SECONDS)
            if progress != (progress := _progress(job)):
                waited = 0.0
        hung = waited > job.hung_after
        if hung:
            _say_where(process)
            _end(process)
        record = read_record(job.run, job.cell.id)
        if record is None:
            cause = _cause_of_hang(job) if hung else _cause_of_death(process.exitcode)
            record = failed_record(
                identity_of(job.cell), cause=cause, folder=job.folder, traceback=_last_words(job.folder)
            )
            write_json(job.folder / "record.json", record)
        status = str(record["status"])
        if status == "done":
            break
    return status


def _schedule(
    jobs: Sequence[CellJob], *, parallel: int, backend: str, retries: int, stop: threading.Event
) -> Iterator[str]:
    """Statuses as cells end."""
    if backend == "dask":
        from distributed import Client, as_completed  # noqa: PLC0415

        address = os.environ.get("DASK_SCHEDULER_ADDRESS")
        # Threads, as below; and what workers have started could not start a process
        here = {"processes": False, "n_workers": 1, "threads_per_worker": parallel, "dashboard_address": None}
        with Client(address) if address else Client(**here) as client:
            futures = [client.submit(_supervise_elsewhere, job, retries, pure=False) for job in jobs]
            for future in as_completed(futures):
                yield future.result()
    elif backend == "ray":
        import ray  # noqa: PLC0415

        ray.init(num_cpus=None if "RAY_ADDRESS" in os.environ else parallel, ignore_reinit_error=True)
        # Ray hides the GPUs from a task that does not ask for one
        devices = {job.cell.numerics.device for job in jobs}
        remote = ray.remote(num_cpus=1, num_gpus=1 if "cuda" in devices else 0)(_supervise_elsewhere)
        waiting = [remote.remote(job, retries) for job in jobs]
        while waiting:
            ready, waiting = ray.wait(waiting)
            yield from ray.get(ready)
    else:
        # Threads, since each task only waits for its process; a loky worker that is killed would end the call.
        yield from Parallel(n_jobs=parallel, backend="threading", return_as="generator_unordered")(
            delayed(supervise)(job, retries, stop.is_set) for job in jobs
        )


def _supervise_elsewhere(job: CellJob, retries: int) -> str:
    """In a worker of a cluster, which has the run's folder but not our memory."""
    if multiprocessing.current_process().daemon:
        raise UserError(
            "this worker of Dask may not start processes, and every cell has one of its own: start workers with "
            "--no-nanny, or with DASK_DISTRIBUTED__WORKER__DAEMON=False in their environment"
        )
    return supervise(job, retries, (job.run / STOPPING).exists)


def _in_own_process(job: CellJob) -> None:
    """What the process does: its output goes to a file, the keyboard's interrupt is its parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    job.folder.mkdir(parents=True, exist_ok=True)
    lock_cell_folder(job.folder)
    output = os.open(job.folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    faulthandler.enable(2)
    faulthandler.register(signal.SIGUSR1, 2)
    run_cell(job)
    sys.stdout.flush()


def _die_with_parent() -> None:
    """An orphan would go on writing into a folder that the next run believes to be its own."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _progress(job: CellJob) -> tuple[int, int]:
    """Changes whenever the cell writes to its log or touches it; its clock may be another machine's."""
    try:
        state = (job.folder / "log.jsonl").stat()
    except OSError:
        return 0, 0
    return state.st_mtime_ns, state.st_size


def _say_where(process: BaseProcess) -> None:
    """Have the process print where each of its threads is, if it can still do that."""
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
    phases = [line["phase"] for line in read_log(job.folder / "log.jsonl") if "phase" in line]
    phase = phases[-1] if phases else "starting"
    return f"hung: no progress for {job.hung_after / 60:g} minutes while {phase} (--hung-after)"


def _cause_of_death(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else str(-code)
        hint = "; the system may have run out of memory" if name == "SIGKILL" else ""
        return f"the process was ended by {name}{hint}"
    return f"the process ended with status {code} and left no record"


def _last_words(folder: Path) -> str | None:
    """The end of what the process printed."""
    try:
        return "\n".join((folder / "output.txt").read_text(errors="replace").splitlines()[-LAST_LINES:]) or None
    except FileNotFoundError:
        return None
