"""The table of AP and recall by object size."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from bench.analysis.run_records import Run
from bench.data.subsets import NETWORK_SIZES, SIZES
from bench.report.notes import subject
from bench.report.tables.entries import variant_table
from bench.report.tables.typeset import Heading, Table


def sizes_table(run: Run, effects: pd.DataFrame) -> Table:
    """AP by object size in the original image and at the network input; recall by size in the original image."""
    sizes = (*SIZES, *NETWORK_SIZES)
    table = variant_table(
        run,
        name="sizes",
        caption=f"AP and recall by object size on {subject(run)}, in percent. Small: area below 32 × 32 pixels, large: "
        "above 96 × 96, in pixels of the original image and of the baseline's network input. AR100: recall with 100 "
        "detections per image and class. n: ground truths. Bold: clearly above the baseline (table of effects).",
        metrics=[*(f"AP_{size}" for size in sizes), *(f"AR_{size}" for size in SIZES)],
        counts=[f"ground_truths_{size}" for size in sizes],
        effects=effects,
    )
    variant, *others = table.headings
    return replace(table, headings=(variant, *map(_with_resolution, others)))


def _with_resolution(heading: Heading) -> Heading:
    where = "network" if heading.name.endswith("_network") else "original"
    return replace(heading, text=f"{where}\n{heading.text}")
