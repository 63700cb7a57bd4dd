"""Everything computed from the records of a run, once, for tables, plots, verdict and page."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from bench.analysis.best import best_frame
from bench.analysis.cell_errors import RunErrors, load_run_errors
from bench.analysis.effects import effects_frame
from bench.analysis.error_costs import errors_frame
from bench.analysis.lengths import lengths_frame
from bench.analysis.run_records import Run
from bench.analysis.samples import Samples, samples_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """What `samples_of`, `effects_frame`, `best_frame`, `lengths_frame`, `load_run_errors`, `errors_frame` return."""

    run: Run
    samples: Samples
    effects: pd.DataFrame
    best: pd.DataFrame
    lengths: pd.DataFrame
    cell_errors: RunErrors
    errors: pd.DataFrame


def analyse(run: Run) -> Analysis:
    """Effects and errors of the finished cells. Raises UserError if a stored file cannot be read."""
    errors = load_run_errors(run)
    samples = samples_of(run)
    effects = effects_frame(run, samples)
    return Analysis(
        run=run,
        samples=samples,
        effects=effects,
        best=best_frame(run, samples),
        lengths=lengths_frame(run, effects),
        cell_errors=errors,
        errors=errors_frame(run, errors),
    )
