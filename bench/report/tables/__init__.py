"""The tables of a run: one table per file, listed in `TABLES`.

Frames and CSV hold AP as fractions of 1 in full precision; printed tables show percent. Missing values are empty in CSV
and n/a in print, never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.analysis.lengths import lengths_of
from bench.analysis.results import Analysis
from bench.report.tables.ablation import ablation_table
from bench.report.tables.best import best_table
from bench.report.tables.budget import budget_differences_table, budget_table
from bench.report.tables.conditions import conditions_table
from bench.report.tables.effects import effects_table
from bench.report.tables.environment import environment_table
from bench.report.tables.error_differences import error_differences_table
from bench.report.tables.errors import errors_table
from bench.report.tables.lengths import lengths_table
from bench.report.tables.per_class import per_class_table
from bench.report.tables.power import power_table
from bench.report.tables.sizes import sizes_table
from bench.report.tables.throughput import throughput_table
from bench.report.tables.training_fit import training_fit_table
from bench.report.tables.typeset import Table
from bench.report.tables.voc import voc_table

# By name, in the order of the report.
TABLES: Mapping[str, Callable[[Analysis], Table]] = {
    "ablation": ablation_table,
    "effects": effects_table,
    "lengths": lengths_table,
    "best": best_table,
    "power": power_table,
    "budget": lambda analysis: budget_table(analysis.run, analysis.cell_errors, analysis.errors),
    "budget_differences": lambda analysis: budget_differences_table(analysis.run, analysis.errors),
    "errors": lambda analysis: errors_table(analysis.run, analysis.cell_errors, analysis.errors),
    "error_differences": lambda analysis: error_differences_table(analysis.run, analysis.errors),
    "per_class": lambda analysis: per_class_table(analysis.run, analysis.effects),
    "sizes": lambda analysis: sizes_table(analysis.run, analysis.effects),
    "conditions": lambda analysis: conditions_table(analysis.run),
    "voc": lambda analysis: voc_table(analysis.run),
    "training_fit": lambda analysis: training_fit_table(analysis.run),
    "throughput": lambda analysis: throughput_table(analysis.run),
    "environment": lambda analysis: environment_table(analysis.run),
}


def all_tables(analysis: Analysis) -> list[Table]:
    """Every table of a run; `lengths` only if it continues another."""
    several = len(lengths_of(analysis.lengths)) > 1
    return [make(analysis) for name, make in TABLES.items() if several or name != "lengths"]
