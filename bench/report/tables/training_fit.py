"""The table of under- and overfitting: AP on training images and the loss at the end."""

from __future__ import annotations

import pandas as pd

from bench.analysis.run_records import Run
from bench.analysis.training_fit import fit_by_variant, training_fit_frame
from bench.report.notes import common_value, epochs_text, subject, unfinished_cells
from bench.report.tables.formats import MISSING, formatted, integer, is_missing, percent, points
from bench.report.tables.typeset import Entry, Heading, Table, with_integers

INTEGERS = ("seeds", "steps", "images_train", "images_scored", "still_falling")


def training_fit_table(run: Run) -> Table:
    """Steps, epochs, AP on training and validation images, and the fall of the loss at the end, by variant.

    `frame`: the columns of `fit_by_variant` (AP and falls as fractions of 1), one row per variant in the order of the
    plan; still_falling is 1, 0, or empty if unknown.
    """
    cells = training_fit_frame(run)
    frame = fit_by_variant(cells).set_index("variant").reindex(run.variants).reset_index(names="variant")
    scored = common_value(cells["images_scored"])
    sample = "training images" if scored is None else f"{scored} training images"
    recorded = bool(cells["AP_train"].notna().any())
    return Table(
        name="training_fit",
        caption=f"Under- and overfitting on {subject(run)}: AP in percent on {sample}, without augmentation, and on "
        "the validation images. Loss: its fall over the last quarter of the steps, with the standard error. A loss "
        "counts as still falling if it falls clearly there and also before the learning rate decays.",
        frame=with_integers(frame, INTEGERS),
        headings=(
            Heading(name="variant", text="variant", left=True),
            Heading(name="steps", text="steps", group="length"),
            Heading(name="epochs", text="epochs", group="length"),
            Heading(name="AP_train", text="AP\ntraining", group="AP"),
            Heading(name="AP_val", text="AP\nvalidation", group="AP"),
            Heading(name="gap", text="gap\npoints", group="AP"),
            Heading(name="loss_fall", text="loss falls\nby %", group="loss"),
            Heading(name="still_falling", text="still\nfalling", group="loss"),
        ),
        rows=tuple(_entries(row) for _, row in frame.iterrows()),
        notes=(
            *(() if recorded or cells.empty else ("The version that made this run scored no training images.",)),
            *unfinished_cells(run),
        ),
    )


def _entries(row: pd.Series) -> tuple[Entry, ...]:
    fall = formatted(row["loss_fall"], percent)
    falling = row["still_falling"]
    texts = (
        str(row["variant"]),
        formatted(row["steps"], integer),
        formatted(row["epochs"], epochs_text),
        formatted(row["AP_train"], percent),
        formatted(row["AP_val"], percent),
        formatted(row["gap"], points),
        fall if fall == MISSING else f"{fall} ± {formatted(row['loss_fall_se'], percent)}",
        MISSING if is_missing(falling) else "yes" if falling else "no",
    )
    return tuple(Entry(text) for text in texts)
