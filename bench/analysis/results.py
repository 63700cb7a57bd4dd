"""Everything computed from the records of a run, once, for tables, plots, verdict and page."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from bench.analysis.cell_errors import RunErrors, load_run_errors
from bench.analysis.effects import effects_frame
from bench.analysis.error_costs import errors_frame
from bench.analysis.run_records import Run


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """effects: `effects_frame(run)`. cell_errors: `load_run_errors(run)`. errors: `errors_frame(run, cell_errors)`."""

    run: Run
    effects: pd.DataFrame
    cell_errors: RunErrors
    errors: pd.DataFrame


def analyse(run: Run) -> Analysis:
    """Effects and errors of the finished cells. Raises UserError if a stored file cannot be read."""
    errors = load_run_errors(run)
    return Analysis(run=run, effects=effects_frame(run), cell_errors=errors, errors=errors_frame(run, errors))
