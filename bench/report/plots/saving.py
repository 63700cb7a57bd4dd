"""Figures as files, in one style."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib as mpl
import seaborn as sns
from matplotlib.figure import Figure

from bench.storage.atomic import replacing


def draw_into(folder: Path, figures: Mapping[str, Callable[[], Figure]]) -> list[Path]:
    """Write each figure to `folder` as PNG (200 dpi) and SVG under its name; returns the files in order."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    # A fixed salt and no date make files reproducible.
    with (
        sns.axes_style("whitegrid"),
        sns.plotting_context("paper"),
        mpl.rc_context({"svg.hashsalt": "ablation"}),
    ):
        for name, draw in figures.items():
            figure = draw()
            for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
                path = folder / f"{name}.{ending}"
                with replacing(path) as file:
                    figure.savefig(file, format=ending, dpi=200, metadata=metadata)
                figure.set_layout_engine("none")  # reuse the layout of the first file; computing it takes half the time
                written.append(path)
    return written
