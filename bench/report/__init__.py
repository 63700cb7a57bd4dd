"""From figures to files: tables, plots and what stands in the terminal. Nothing in here imports torch."""

from __future__ import annotations

from pathlib import Path


def build_report(folder: Path) -> list[Path]:
    """Write ``tables/`` and ``plots/`` of the run in `folder` from what it has stored so far; the files.

    Raises UserError when the folder is not a run.
    """
    # The live display is in this package too, and should not wait seconds for matplotlib.
    from bench.analysis.effects import effects_frame  # noqa: PLC0415
    from bench.analysis.frame import load_run  # noqa: PLC0415
    from bench.report.plots import write_plots  # noqa: PLC0415
    from bench.report.tables import write_tables  # noqa: PLC0415

    run = load_run(folder)
    effects = effects_frame(run)
    return [*write_tables(run, effects), *write_plots(run, effects)]
