"""The tables of a comparison: detectors, differences, classes, errors, score thresholds."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd

from bench.analysis.bootstrap import MIN_IMAGES, weak_classes_note
from bench.analysis.effects import HIGHER
from bench.analysis.error_costs import IMPRECISE
from bench.compare.comparison import Comparison
from bench.data.subsets import SIZES
from bench.evaluation.error_types import FALSE_NEGATIVES, FALSE_POSITIVES, KINDS
from bench.report.notes import subject
from bench.report.tables.error_differences import missing_intervals
from bench.report.tables.errors import DEFINITIONS
from bench.report.tables.formats import MISSING, formatted, integer, p_value, percent, points
from bench.report.tables.typeset import Entry, Heading, Table, with_integers

METRICS = ("AP", "AP50", "AP75", *(f"AP_{size}" for size in SIZES))


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Every table of a comparison, the main one first."""
    return [
        detectors_table(comparison),
        differences_table(comparison),
        per_class_table(comparison),
        errors_table(comparison),
        thresholds_table(comparison),
    ]


def score(value: float) -> str:
    """A score or F1 with three decimals."""
    return f"{value:.3f}"


def chance(fraction: float) -> str:
    """A probability in whole per cent, which is 0 or 100 only if it is exactly that."""
    if 0 < fraction < 0.01:
        return "<1"
    return ">99" if 0.99 < fraction < 1 else f"{100 * fraction:.0f}"


def detectors_table(comparison: Comparison) -> Table:
    """One row per detector: accuracy, chance to be the best, calibration, best threshold."""
    frame = _detectors_frame(comparison)
    counts = comparison.analysis.run.records[comparison.analysis.run.cells[0].id]["accuracy"]["ground_truths"]
    rows = []
    for _, row in frame.iterrows():
        first = row["detector"] == comparison.reference
        rows.append(
            (
                Entry(row["detector"]),
                Entry(formatted(row["AP"], percent)),
                Entry("" if first else formatted(row["difference"], points)),
                Entry("" if first else _interval(row)),
                *(
                    Entry(formatted(row[metric], percent), best=_clearly_higher(comparison, row["detector"], metric))
                    for metric in METRICS[1:]
                ),
                Entry(formatted(row["probability_best"], chance)),
                Entry(formatted(row["calibration_error"], percent)),
                *(Entry(formatted(row[name], score)) for name in ("threshold", "F1")),
                Entry(integer(row["detections"])),
            )
        )
    return Table(
        name="detectors",
        caption=f"Detectors on {subject(comparison.analysis.run)}. AP in percent (COCO, mean over IoU .50 to .95); "
        "small, medium and large in pixels of the original image, n ground truths each. ΔAP: difference from "
        f"{comparison.reference} in percentage points, with 95% intervals{_together(comparison)}. Bold: clearly above "
        f"{comparison.reference}. Chance: to have the highest AP. ECE: expected calibration error at an IoU of .5, in "
        "points. Threshold: score with the highest F1 at an IoU of .5.",
        frame=with_integers(frame, ("detections", "images_with_detections")),
        headings=(
            Heading(name="detector", text="detector", left=True),
            Heading(name="AP", text="AP", group="AP"),
            Heading(name="difference", text="ΔAP", group="AP"),
            Heading(name="low", text="95%\ninterval", group="AP"),
            *(Heading(name=name, text=name, group="AP") for name in METRICS[1:3]),
            *(Heading(name=f"AP_{size}", text=f"AP\n{size}\nn={counts[size]}", group="size") for size in SIZES),
            Heading(name="probability_best", text="chance\n%", group="best"),
            Heading(name="calibration_error", text="ECE", group="scores"),
            Heading(name="threshold", text="thres-\nhold", group="scores"),
            Heading(name="F1", text="F1", group="scores"),
            Heading(name="detections", text="detec-\ntions", group="scores"),
        ),
        rows=tuple(rows),
        notes=_notes(comparison),
    )


def differences_table(comparison: Comparison) -> Table:
    """The differences of the metrics over all classes; the CSV has every class too."""
    frame = comparison.differences
    shown = frame[frame["class"] == ""]
    return Table(
        name="differences",
        caption=f"Differences from {comparison.reference} on {subject(comparison.analysis.run)}, in percentage points. "
        f"95% intervals{'; those of AP hold for all detectors together' if len(comparison.names) > 2 else ''}. p: "
        "adjusted by max-T (AP) or by Benjamini and Hochberg (all other rows and single classes, which are "
        "exploratory). Method: docs/statistics.md.",
        frame=with_integers(frame, ("images",)),
        headings=(
            Heading(name="measure", text="metric", left=True),
            Heading(name="detector", text="detector", left=True),
            Heading(name="value", text="value\n%", group="values"),
            Heading(name="reference", text="first\n%", group="values"),
            Heading(name="difference", text="differ-\nence", group="difference"),
            Heading(name="low", text="95%\nfrom", group="difference"),
            Heading(name="high", text="\nto", group="difference"),
            Heading(name="p_adjusted", text="p\nadjusted", group="p"),
            Heading(name="verdict", text="verdict", left=True, group="words"),
            Heading(name="images", text="images", group="words"),
        ),
        rows=tuple(
            (
                Entry(str(row["measure"]).replace("_", " ")),
                Entry(row["detector"]),
                *(Entry(formatted(row[name], percent)) for name in ("value", "reference")),
                *(Entry(points(row[name])) for name in ("difference", "low", "high")),
                Entry(p_value(row["p_adjusted"])),
                Entry(row["verdict"] or MISSING),
                Entry(integer(row["images"])),
            )
            for _, row in shown.iterrows()
        ),
        notes=tuple(missing_intervals(shown["method"])),
        keys=2,
    )


def per_class_table(comparison: Comparison) -> Table:
    """AP of each class and detector, with the differences from the first and their intervals."""
    differences = comparison.differences
    frame = differences[(differences["class"] != "")].drop(columns=["measure", "adjusted_by"])
    counts = _ground_truths(comparison)
    by_place = {(row["class"], row["detector"]): row for _, row in frame.iterrows()}
    others = comparison.names[1:]
    rows = []
    for label in dict.fromkeys(frame["class"]):
        own = [by_place[label, name] for name in others]
        entries = [Entry(label), Entry(str(counts[label])), Entry(formatted(own[0]["reference"], percent))]
        for row in own:
            clear = row["verdict"] == HIGHER
            entries += [Entry(formatted(row["value"], percent), best=clear), Entry(points(row["difference"]))]
            entries += [Entry(_interval(row))]
        rows.append(tuple(entries))
    return Table(
        name="per_class",
        caption=f"AP by class in percent on {subject(comparison.analysis.run)}, and the differences Δ from "
        f"{comparison.reference} in percentage points, with 95% intervals of each class alone; n: ground truths. Bold: "
        f"clearly above {comparison.reference} after adjustment for the number of classes. Exploratory.",
        frame=with_integers(frame, ("images",)),
        headings=(
            Heading(name="class", text="class", left=True),
            Heading(name="ground_truths", text="n"),
            Heading(name=comparison.reference, text=comparison.reference, group=comparison.reference),
            *(
                Heading(name=f"{name}{ending}", text=text, group=name)
                for name in others
                for ending, text in (("", name), (" difference", "Δ"), (" interval", "95%\ninterval"))
            ),
        ),
        rows=tuple(rows),
        notes=(f"n/a: fewer than {MIN_IMAGES} independent images show the class.",)
        if frame["low"].isna().any()
        else (),
        keys=2,
    )


def errors_table(comparison: Comparison) -> Table:
    """What each type of error costs each detector, and how that differs from the first one."""
    frame = comparison.errors
    by_place = {(row["kind"], row["detector"]): row for _, row in frame[frame["bucket"] == ""].iterrows()}
    shown = [
        by_place[kind, name]
        for kind in (IMPRECISE, *KINDS, FALSE_POSITIVES, FALSE_NEGATIVES)
        for name in comparison.names
    ]
    return Table(
        name="errors",
        caption=f"Errors on {subject(comparison.analysis.run)}: number, and points of AP50 recovered by fixing all "
        f"errors of one type and no others. Imprecise boxes cost AP50 minus AP. {DEFINITIONS} "
        f"Difference: cost minus that of {comparison.reference}; negative: the type costs less. 95% "
        "intervals, not adjusted for multiple comparisons: exploratory. Sizes (in pixels of the original image) and "
        "classes are in errors.csv.",
        frame=with_integers(frame, ("ground_truths", "n")),
        headings=(
            Heading(name="kind", text="errors", left=True),
            Heading(name="detector", text="detector", left=True),
            Heading(name="count", text="number", group="cost"),
            Heading(name="dAP50", text="cost\npoints", group="cost"),
            Heading(name="difference", text="differ-\nence", group="difference"),
            Heading(name="low", text="95%\nfrom", group="difference"),
            Heading(name="high", text="\nto", group="difference"),
        ),
        rows=tuple(
            (
                Entry(row["kind"]),
                Entry(row["detector"]),
                Entry(formatted(row["count"], integer)),
                Entry(formatted(row["dAP50"], percent)),
                *(
                    Entry("" if row["detector"] == comparison.reference else points(row[name]))
                    for name in ("difference", "low", "high")
                ),
            )
            for row in shown
        ),
        notes=tuple(missing_intervals(row["method"] for row in shown)),
        keys=2,
    )


def thresholds_table(comparison: Comparison) -> Table:
    """The score threshold with the highest F1 of each detector, for all classes together and for each class."""
    frame = comparison.thresholds
    by_place = {(row["class"], row["detector"]): row for _, row in frame.iterrows()}
    columns: Mapping[str, tuple[str, Callable[[float], str]]] = {
        "threshold": ("thres-\nhold", score),
        "f1": ("F1", score),
        "precision": ("preci-\nsion %", percent),
        "recall": ("recall\n%", percent),
    }
    return Table(
        name="thresholds",
        caption=f"The score threshold with the highest F1 at an IoU of .5 on {subject(comparison.analysis.run)}: keep "
        "detections with at least this score. All classes: one threshold for all, every object counts the same; n: "
        "ground truths. Chosen on these images: on others F1 is a little lower, more so in classes with few objects.",
        frame=with_integers(frame, ("ground_truths",)),
        headings=(
            Heading(name="class", text="class", left=True),
            Heading(name="ground_truths", text="n"),
            *(
                Heading(name=f"{name} {column}", text=f"{name}\n{heading}", group=name)
                for name in comparison.names
                for column, (heading, _) in columns.items()
            ),
        ),
        rows=tuple(
            (
                Entry(label or "all classes"),
                Entry(str(by_place[label, comparison.reference]["ground_truths"])),
                *(
                    Entry(formatted(by_place[label, name][column], show))
                    for name in comparison.names
                    for column, (_, show) in columns.items()
                ),
            )
            for label in dict.fromkeys(frame["class"])
        ),
        keys=2,
    )


def _detectors_frame(comparison: Comparison) -> pd.DataFrame:
    run, best = comparison.analysis.run, comparison.analysis.best.set_index("variant")
    thresholds = comparison.thresholds[comparison.thresholds["class"] == ""].set_index("detector")
    rows = []
    for cell, record in run.done():
        name, accuracy = cell.variant, record["accuracy"]
        row = comparison.difference(name, "AP")
        rows.append(
            {
                "detector": name,
                **{metric: accuracy[metric] for metric in METRICS},
                **{end: None if row is None else row[end] for end in ("difference", "low", "high")},
                "probability_best": best["probability_best"].get(name),
                "calibration_error": comparison.calibration[name],
                "threshold": thresholds.loc[name, "threshold"],
                "F1": thresholds.loc[name, "f1"],
                "detections": comparison.counts[name],
                "images_with_detections": comparison.detected[name],
            }
        )
    return pd.DataFrame(rows)


def _clearly_higher(comparison: Comparison, name: str, metric: str) -> bool:
    row = comparison.difference(name, metric)
    return row is not None and row["verdict"] == HIGHER


def _ground_truths(comparison: Comparison) -> dict[str, int]:
    """By class."""
    frame = comparison.thresholds[comparison.thresholds["detector"] == comparison.reference]
    return dict(zip(frame["class"], frame["ground_truths"].astype(int), strict=True))


def _interval(row: pd.Series) -> str:
    if pd.isna(row["low"]):
        return MISSING
    return f"{points(row['low'])} to {points(row['high'])}"


def _together(comparison: Comparison) -> str:
    return " that hold for all detectors together" if len(comparison.names) > 2 else ""


def _notes(comparison: Comparison) -> tuple[str, ...]:
    """What the intervals cover, and what weakens them."""
    resampled = comparison.analysis.samples.resampled
    notes = ["Intervals cover other images of this kind, not training the detectors again."]
    if comparison.groups < resampled.images:
        notes.append(f"Near-duplicates are drawn together: {comparison.groups} groups in {resampled.images} images.")
    empty = {name: resampled.images - number for name, number in comparison.detected.items()}
    listed = ", ".join(f"{name} on {number}" for name, number in empty.items() if number)
    if listed:
        notes.append(f"No detections: {listed} of {resampled.images} images. Their objects count as missed.")
    unscaled = [name for name, error in comparison.calibration.items() if pd.isna(error) and comparison.counts[name]]
    if unscaled:
        notes.append(f"No ECE: scores outside 0 to 1 ({', '.join(unscaled)}).")
    warning = weak_classes_note(*resampled.weak_classes)
    return (*notes, *([warning] if warning else []), *missing_intervals(comparison.differences["method"][:1]))
