"""All that is computed from the records of a run, once, for its tables, plots, verdict and page."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from bench.analysis.effects import effects_frame
from bench.analysis.error_costs import errors_frame
from bench.analysis.error_counts import Counted, counted_cells
from bench.analysis.run_records import Run


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """effects: `effects_frame(run)`. counted: `counted_cells(run)`. errors: `errors_frame(run, counted)`."""

    run: Run
    effects: pd.DataFrame
    counted: Counted
    errors: pd.DataFrame


def analyse(run: Run) -> Analysis:
    """Effects and errors of the cells that are done. Raises UserError for stored files that cannot be read."""
    counted = counted_cells(run)
    return Analysis(run=run, effects=effects_frame(run), counted=counted, errors=errors_frame(run, counted))
