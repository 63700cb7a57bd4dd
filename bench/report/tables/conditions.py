"""The tables of AP by truncation and occlusion, and of VOC's AP."""

from __future__ import annotations

from bench.analysis.run_records import Run
from bench.data.subsets import CONDITIONS
from bench.report.sentences import common, subject, unfinished
from bench.report.tables.columns import COLUMNS, VOC_COLUMNS
from bench.report.tables.entries import entries, heading, summary
from bench.report.tables.typeset import Entry, Heading, Table


def conditions(run: Run) -> Table:
    """AP and recall of truncated, untruncated, occluded and unoccluded objects, with the number of each.

    `frame`: variant, AP_truncated and so on, AR_truncated and so on (fractions of 1), ground_truths_truncated
    and so on; empty where the data do not state the condition.
    """
    measures = [f"{measure}_{name}" for measure in ("AP", "AR") for name in CONDITIONS]
    counts = {name: f"ground_truths_{name}" for name in CONDITIONS}
    figures = summary(run, (*measures, *counts.values()))
    number = {name: common(figures[count]) for name, count in counts.items()}
    columns = [[Entry(name) for name in run.variants], *(entries(figures, name) for name in measures)]
    return Table(
        name="conditions",
        caption=f"AP and recall of truncated and occluded objects on {subject(run)}, in per cent. AR100: recall at "
        "100 detections per image and class. n: ground truths; those of another condition, or of none that is "
        "stated, are ignored. A detection that matches nothing is wrong in every condition, so the rarer condition "
        "has the lower AP at equal recall: compare AP between variants, and between conditions AR.",
        frame=figures.reset_index(names="variant"),
        headings=(
            Heading(name="variant", text="variant", left=True),
            *(heading(COLUMNS[name], number[name.split("_", 1)[1]]) for name in measures),
        ),
        rows=tuple(zip(*columns, strict=True)),
        notes=(*_unstated(run), *unfinished(run)),
    )


def voc(run: Run) -> Table:
    """VOC's AP at IoU .5, mean of the classes: `frame` has variant, voc_AP_11point and voc_AP_area (fractions of 1)."""
    figures = summary(run, VOC_COLUMNS)
    columns = [[Entry(name) for name in run.variants], *(entries(figures, name) for name in VOC_COLUMNS)]
    return Table(
        name="voc",
        caption=f"AP by the rules of the VOC devkit on {subject(run)}, in per cent: IoU of at least .5 on inclusive "
        "pixels, difficult objects ignored, mean of the classes. 11 points: as VOC2007; area: as VOC2010 and later.",
        frame=figures.reset_index(names="variant"),
        headings=(
            Heading(name="variant", text="variant", left=True),
            *(heading(COLUMNS[name]) for name in VOC_COLUMNS),
        ),
        rows=tuple(zip(*columns, strict=True)),
        notes=unfinished(run),
    )


def _unstated(run: Run) -> tuple[str, ...]:
    """A sentence for each condition that the records know, and that no object of the data states."""
    numbers = [(record.get("accuracy") or {}).get("ground_truths") or {} for _, record in run.done()]
    return tuple(
        f"The data do not state whether objects are {name}."
        for name in ("truncated", "occluded")
        if any(name in counts for counts in numbers) and all(counts.get(name) is None for counts in numbers)
    )
