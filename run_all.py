#!/usr/bin/env python3
"""Train and compare every combination of remedies for a low SSD-300 mAP, on one shared split.

This file is the command line: it parses the options and hands them on.
Exit status: 0 all cells done; 1 some failed; 2 the request is wrong; 3 a detector is clearly worse (compare
--fail-below); 130 interrupted.
"""

from __future__ import annotations

import io
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench import options
from bench.device.module_path import protect_multiprocessing
from bench.device.process_settings import limit_openmp_spin
from bench.errors import UserError, explained, visible
from bench.run import parsers
from bench.run.parsers import parse_options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        # A shell's background job starts with SIGINT ignored, and batch systems end a job with SIGTERM
        signal.signal(signal.SIGINT, interrupt_once)
        signal.signal(signal.SIGTERM, interrupt_once)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # letters that the terminal's encoding lacks
    limit_openmp_spin()
    protect_multiprocessing()
    commands = {
        "preflight": preflight,
        "diagnose": diagnose,
        "compare": compare,
        "report": report,
        "predict": predict,
        "throughput": throughput,
    }
    try:
        require_current_folder()
        status = commands[words[0]](words[1:]) if words and words[0] in commands else run(words)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of a pipe has seen enough; all files were written before the last lines
        discard_output()
        return 0
    except (UserError, OSError, MemoryError) as error:
        print(f"error: {visible(explained(error))}", file=sys.stderr)
        discard_output()
        return 2
    except KeyboardInterrupt:
        print(f"\ninterrupted; resume with: {shlex.join(['python', 'run_all.py', *words])}", file=sys.stderr)
        return 130


def interrupt_once(number: int, frame: Any) -> None:
    """Stop at the first signal, and ignore further ones while stopping."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def require_current_folder() -> None:
    """Raise UserError if the current folder was deleted: relative paths then mean nothing."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UserError("the current folder was deleted; change to another one and repeat the command") from None


def discard_output() -> None:
    """Send what is still buffered for the standard output nowhere, if it cannot be written."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError):  # no file behind it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# Each command imports its modules after its options have been parsed and checked: importing torch takes seconds.


def run(words: Sequence[str]) -> int:
    """The main job: plan, run the cells that are not done, report."""
    chosen = parse_options(options.RunOptions, parsers.run_parser(), words)
    keep_caches_in(chosen.data.cache)
    from bench.run.checks import check_run

    checked = check_run(chosen)
    if not chosen.plan:
        from bench.device.fork_server import start_fork_server

        # It imports torch while this process does
        start_fork_server(cpu_kernels=chosen.may_use_cpu_kernels)
    from bench.run.commands.matrix import run_matrix

    return run_matrix(chosen, checked)


def preflight(words: Sequence[str]) -> int:
    """Every problem of the data, in the terminal and in preflight.json."""
    chosen = parse_options(options.PreflightOptions, parsers.preflight_parser(), words)
    keep_caches_in(chosen.data.cache)
    from bench.data.sources import check_source

    check_source(chosen.data.source)
    from bench.run.commands.preflight import run_preflight

    return run_preflight(chosen)


def diagnose(words: Sequence[str]) -> int:
    """Causes of a low mAP in the data; with --detections or --weights, scores of a detector too."""
    chosen = parse_options(options.DiagnoseOptions, parsers.diagnose_parser(), words)
    keep_caches_in(chosen.data.cache)
    from bench.run.checks import check_diagnose

    check_diagnose(chosen)
    from bench.run.commands.diagnose import run_diagnose

    return run_diagnose(chosen)


def compare(words: Sequence[str]) -> int:
    """Differences between the detections of any detectors, with intervals."""
    chosen = parse_options(options.CompareOptions, parsers.compare_parser(), words)
    keep_caches_in(chosen.data.cache)
    from bench.run.checks import check_compare

    files = check_compare(chosen)
    from bench.run.commands.compare import run_compare

    return run_compare(chosen, files)


def report(words: Sequence[str]) -> int:
    """Tables, plots and page again, from the records alone."""
    chosen = parse_options(options.ReportOptions, parsers.report_parser(), words)
    keep_caches_in(chosen.cache)
    from bench.run.commands.report import run_report

    return run_report(chosen)


def predict(words: Sequence[str]) -> int:
    """Draw the detections of a trained cell on images."""
    chosen = parse_options(options.PredictOptions, parsers.predict_parser(), words)
    keep_caches_in(chosen.cache)
    from bench.run.predict import draw_predictions

    for path in draw_predictions(chosen):
        print(visible(str(path)))
    return 0


def throughput(words: Sequence[str]) -> int:
    """Measure speed alone."""
    chosen = parse_options(options.ThroughputOptions, parsers.throughput_parser(), words)
    keep_caches_in(chosen.data.cache)
    from bench.run.checks import check_throughput

    check_throughput(chosen)
    from bench.run.commands.throughput import run_throughput

    return run_throughput(chosen)


def keep_caches_in(cache: Path) -> None:
    """Make libraries keep their files in our cache, so that nothing is written elsewhere unasked."""
    for variable, folder in (
        ("MPLCONFIGDIR", "matplotlib"),
        ("TORCH_HOME", "torch"),
        ("HF_HOME", "huggingface"),
    ):
        os.environ.setdefault(variable, str(cache.resolve() / folder))
    if not os.access(Path(__file__).parent / "bench" / "cpu" / "loops", os.W_OK):
        os.environ.setdefault("NUMBA_CACHE_DIR", str(cache.resolve() / "numba"))  # by default beside the source


if __name__ == "__main__":
    sys.exit(main())
