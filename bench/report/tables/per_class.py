"""The table of AP by class."""

from __future__ import annotations

import pandas as pd

from bench.analysis.run_records import Run, classes_frame
from bench.report.notes import common_value, subject, unfinished_cells
from bench.report.tables.entries import clearly_higher, with_std
from bench.report.tables.formats import formatted, integer, is_missing, percent
from bench.report.tables.typeset import Entry, Heading, Table


def per_class_table(run: Run, effects: pd.DataFrame) -> Table:
    """AP of each class (rows) and variant (columns), with the number of ground truths of the class."""
    classes = classes_frame(run)
    names = list(dict.fromkeys(classes["class"]))
    counts = classes.groupby("class", sort=False)["ground_truths"].agg(common_value)
    frame = pd.DataFrame(index=pd.Index(names, name="class"), dtype=object)
    frame["ground_truths"] = [None if is_missing(counts[name]) else int(counts[name]) for name in names]
    for variant in run.variants:
        values = classes[classes["variant"] == variant].groupby("class")["AP"]
        frame[variant] = values.mean().reindex(names).astype(object)
        if len(run.seeds) > 1:
            frame[f"{variant}_std"] = values.std(ddof=1).reindex(names).astype(object)
    clear = {name: clearly_higher(effects, "AP", name) for name in names}
    rows = [
        (
            Entry(name),
            Entry(formatted(frame["ground_truths"][name], integer)),
            *(
                Entry(with_std(frame.loc[name], variant, percent), best=variant in clear[name])
                for variant in run.variants
            ),
        )
        for name in names
    ]
    return Table(
        name="per_class",
        caption=f"AP by class in percent (COCO, mean over IoU .50 to .95) on {subject(run)}; n: ground truths of the "
        "class. Bold: clearly above the baseline (table of effects).",
        frame=frame.reset_index(),
        headings=(
            Heading(name="class", text="class", left=True),
            Heading(name="ground_truths", text="n"),
            *(Heading(name=name, text=name.replace("+", "\n+"), group=name) for name in run.variants),
        ),
        rows=tuple(rows),
        notes=unfinished_cells(run),
        keys=2,
    )
