"""The plots of diagnosis.json: object sizes at both resolutions, and object shapes under both sets of priors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from bench.analysis.prior_shapes import PriorSet, shapes_frame
from bench.data.subsets import SIZE_SIDES
from bench.report.plots.canvas import COLOURS, GREY, WIDTH, legend_beside, show_empty
from bench.report.plots.priors import draw_priors, logarithmic
from bench.report.plots.saving import draw_into


def write_diagnosis_plots(content: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write object_sizes and object_shapes to `folder` as PNG (200 dpi) and SVG; returns the files in order."""
    return draw_into(
        folder, {"object_sizes": partial(object_sizes, content), "object_shapes": partial(object_shapes, content)}
    )


def object_sizes(content: Mapping[str, Any]) -> Figure:
    """Histograms of object sides (of a square of equal area), in the original images and at the network input.

    Shares of each split on a logarithmic axis; dashed: COCO's limits of small and large.
    """
    size = content["detector"]["size"]
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 1, sharex=True, sharey=True)
    used: list[float] = []
    titles = {"original": "in the original images", "network": f"at the network input, {size} × {size}"}
    for axes, (key, title) in zip(panels, titles.items(), strict=True):
        for place, (side, words) in enumerate((("train", "training"), ("val", "validation"))):
            own = content["sizes"][side]
            if not own["objects"]:
                continue
            edges, counts = np.array(own["histogram"]["edges"]), np.array(own["histogram"][key])
            axes.stairs(
                100 * counts / own["objects"],
                edges,
                color=COLOURS[place],
                linestyle=("-", (0, (4, 1.5)))[place],
                linewidth=1.4,
                label=f"{words}, n = {own['objects']}",
            )
            used += [*edges[:-1][counts > 0], *edges[1:][counts > 0]]
        for limit in SIZE_SIDES:
            axes.axvline(limit, color=GREY, linestyle="--", linewidth=0.9)
        axes.set_title(title, fontsize="small")
        axes.set_ylabel("% of objects")
    panels[0].set_xscale("log")
    if used:
        panels[0].set_xlim(min(used) / 1.1, max(used) * 1.1)
        legend_beside(figure, panels[0])
    else:
        show_empty(panels[0], "no objects")
    panels[1].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panels[1].xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panels[1].xaxis.set_minor_formatter(NullFormatter())
    panels[1].set_xlabel("side of a square of equal area, pixels; dashed: COCO's size limits")
    figure.suptitle(f"{content['data']}: object sizes", fontsize="medium").set_parse_math(False)
    return figure


def object_shapes(content: Mapping[str, Any]) -> Figure:
    """Width and height of validation objects at the network input, with the given and the fitted priors."""
    detector, matchable = content["detector"], content["matchable"]
    truth = pd.DataFrame(np.array(content["sizes"]["val"]["shapes"]).reshape(-1, 2), columns=["width", "height"])
    figure = Figure(figsize=(WIDTH, 3.7), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(1, 2, sharey=True))
    sets = []
    for key, priors in (("given", "priors"), ("fitted", "fitted")):
        own = matchable[key]["val"]["all"]
        shapes = shapes_frame(detector[priors], detector["feature_maps"], detector["size"])
        sets.append(
            PriorSet(
                variant=f"priors {content['priors']}" if key == "given" else "fitted to the training split",
                size=detector["size"],
                shapes=shapes,
                threshold=matchable["threshold"],
                matched=own["matched"] / own["objects"] if own["objects"] else None,
                boxes=own["objects"],
            )
        )
    sides = pd.concat([*(each.shapes[["width", "height"]] for each in sets), truth]).to_numpy(dtype=float)
    limits = sides[sides > 0].min() / 1.25, sides.max() * 1.25
    for axes, each in zip(panels, sets, strict=True):
        draw_priors(axes, each, truth)
        logarithmic(axes, limits, each, title=each.variant)
        axes.tick_params(labelsize="x-small")
    panels[0].set_ylabel(f"height at {detector['size']} × {detector['size']}, pixels")
    legend_beside(figure, panels[0])
    title = f"{content['data']}: shapes of validation objects (grey) and priors"
    figure.suptitle(title, fontsize="medium").set_parse_math(False)
    return figure
