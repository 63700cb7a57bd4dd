"""The tables of diagnosis.json, and diagnosis.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.data.subsets import SIZES
from bench.report.tables.formats import MISSING, formatted, percent
from bench.report.tables.typeset import Entry, Heading, Table, escape_markdown, markdown_text
from bench.storage.atomic import write_text

SPLITS = {"train": "training", "val": "validation"}


def diagnosis_tables(content: Mapping[str, Any]) -> list[Table]:
    """The tables of a diagnosis.json in order, with those of detections if it has any."""
    tables = [_sizes(content), _priors(content), _classes(content), _suspicious(content)]
    scored = content.get("detections")
    return tables if scored is None else [*tables, *_scores(scored)]


def write_markdown(content: Mapping[str, Any], path: Path) -> None:
    """Write the ranked findings, then all tables and plots."""
    lines = [f"# {escape_markdown(diagnosis_title(content))}: diagnosis of the data", ""]
    for place, finding in enumerate(content["findings"], 1):
        sentence, remedy = (escape_markdown(finding[key]) for key in ("sentence", "remedy"))
        lines.append(f"{place}. **{finding['severity']}**: {sentence}. *Remedy:* {remedy}.")
    lines += ["", *(markdown_text(table) for table in diagnosis_tables(content))]
    lines += [f"![{name}](plots/{name}.png)" for name in ("object_sizes", "object_shapes")]
    write_text(path, "\n".join(lines) + "\n")


def diagnosis_title(content: Mapping[str, Any]) -> str:
    sides = content["sides"]
    counts = " and ".join(f"{sides[side]['images']} {words}" for side, words in SPLITS.items())
    return f"{content['data']} ({counts} images; {content['split_origin']}; priors {content['priors']})"


def _sizes(content: Mapping[str, Any]) -> Table:
    size = content["detector"]["size"]
    rows = []
    for side, split in SPLITS.items():
        sizes = content["sizes"][side]
        for where, suffix in (("original image", ""), (f"{size} × {size}", "_network")):
            shares = [_share(sizes[f"coco{suffix}"][name], sizes["objects"]) for name in SIZES]
            quantiles = [_quantiles(sizes[f"{name}{suffix}"], digits) for name, digits in (("side", 0), ("ratio", 2))]
            rows.append([split, where, str(sizes["objects"]), *shares, *quantiles])
    return _table(
        "sizes",
        "Objects in pixels of the original images and of the network input. Small: area below 32² pixels; large: from "
        "96²; side: of a square of equal area; 5th, 50th and 95th percentile.",
        ["split", "in", "objects", *(f"{name}\n%" for name in SIZES), "side\npixels", "width by\nheight"],
        rows,
        keys=2,
    )


def _priors(content: Mapping[str, Any]) -> Table:
    matchable = content["matchable"]
    rows = []
    for where, images in (("val", "validation images"), ("views", "training views")):
        given, fitted = (
            {"all": matchable[priors][where]["all"], **matchable[priors][where]["by_size"]}
            for priors in ("given", "fitted")
        )
        for name, counts in given.items():
            shares = [_share(each["matched"], each["objects"]) for each in (counts, fitted[name])]
            means = [formatted(each["priors_mean"], "{:.1f}".format) for each in (counts, fitted[name])]
            rows.append([images, name, str(counts["objects"]), *shares, *means])
    return _table(
        "matchable",
        f"Objects matched by a prior with IoU ≥ {matchable['threshold']}, and the mean number of priors per object, by "
        "object side at the network input: for the given priors and for tuned ones (fitted to the training images). "
        f"On validation images and on {matchable['views']} augmented training views.",
        [
            *("in", "side\npixels", "objects", "matched\n%", "tuned:\nmatched %"),
            *("priors\nper object", "tuned:\nper object"),
        ],
        rows,
        keys=2,
    )


def _classes(content: Mapping[str, Any]) -> Table:
    rows = []
    given, fitted = (content["matchable"][priors]["val"]["by_class"] for priors in ("given", "fitted"))
    for each in sorted(content["classes"], key=lambda row: (row["val"], row["train"])):
        matched_given, matched_tuned = given[each["class"]], fitted[each["class"]]
        side = MISSING if each["side_network"] is None else f"{each['side_network']:.0f}"
        counts = [str(each[key]) for key in ("train", "train_images", "val", "val_images")]
        shares = [_share(table["matched"], table["objects"]) for table in (matched_given, matched_tuned)]
        rows.append([each["class"], *counts, side, *shares])
    lost = content["crowding"]["val"]["suppressed_by_class"]
    return _table(
        "classes",
        "Classes, the rarest in validation first: objects and images (in validation only scored ones), median side at "
        "the network input, validation objects matched by the given and by the tuned priors, and objects that "
        "non-maximum suppression is bound to remove.",
        [
            *("class", "train\nobjects", "train\nimages", "val\nobjects", "val\nimages", "side\npixels"),
            *("matched\n%", "tuned:\nmatched %", "lost"),
        ],
        [[*row, str(lost.get(row[0], 0))] for row in rows],
    )


def _suspicious(content: Mapping[str, Any]) -> Table:
    rows = []
    for kind, description in content["suspect_kinds"].items():
        by_split = [content["suspects"][side]["kinds"][kind] for side in SPLITS]
        first = next((entry for side in by_split for entry in side["listed"]), None)
        example = MISSING if first is None else f"{Path(first['file']).name}: {first['class']} {_corners(first['box'])}"
        rows.append([description, *(str(side["count"]) for side in by_split), example])
    empty = [content["suspects"][side]["empty_images"] for side in SPLITS]
    example = next((Path(name).name for side in empty for name in side["listed"]), MISSING)
    rows.append(["images without boxes (correct if they show no objects)", *(str(e["count"]) for e in empty), example])
    return _table(
        "suspects",
        "Valid but suspicious annotations; diagnosis.json lists each.",
        ["annotation", "train", "val", "example"],
        rows,
        left=(0, 3),
    )


def _scores(scored: Mapping[str, Any]) -> list[Table]:
    accuracy = scored["accuracy"]
    counts = accuracy["ground_truths"]
    overall = ["all", *(formatted(accuracy[key], percent) for key in ("AP", "AP50", "AP75", "AR_100"))]
    by_size = [
        [
            *(f"{name}, {resolution}", formatted(accuracy[f"AP_{name}{suffix}"], percent), MISSING, MISSING),
            *(formatted(accuracy.get(f"AR_{name}{suffix}"), percent), str(counts[f"{name}{suffix}"])),
        ]
        for suffix, resolution in (("", "original image"), ("_network", "network"))
        for name in SIZES
    ]
    by_class = [
        [
            name,
            *(formatted(scores[key], percent) for key in ("AP", "AP50", "AP75", "AR_100")),
            str(scores["ground_truths"]),
        ]
        for name, scores in sorted(
            accuracy["per_class"].items(), key=lambda pair: (pair[1]["AP"] is None, pair[1]["AP"])
        )
    ]
    heads = ["AP\n%", "AP50\n%", "AP75\n%", "AR\n%", "objects"]
    elsewhere = f" ({scored['elsewhere']} on other images ignored)" if scored["elsewhere"] else ""
    about = f"the {scored['detections']} detections in {scored['file']} on validation images{elsewhere}"
    return [
        _table(
            "scores",
            f"AP and recall (AR, 100 detections per image and class) of {about}, by size.",
            ["objects", *heads],
            [[*overall, str(counts["all"])], *by_size],
        ),
        _recall(scored["found"], about),
        _errors(scored["errors"], about),
        _table("scored_classes", f"AP and recall by class, lowest AP first, of {about}.", ["class", *heads], by_class),
    ]


def _errors(errors: Mapping[str, Any], about: str) -> Table:
    rows = [[kind, str(error["count"]), formatted(error["dAP50"], percent)] for kind, error in errors.items()]
    return _table(
        "scored_errors",
        "Errors by TIDE type (docs/errors.md): points of AP50 recovered by fixing all errors of one type and no "
        f"others; {about}.",
        ["errors", "number", "points\nof AP50"],
        rows,
    )


def _recall(by_size: Mapping[str, Any], about: str) -> Table:
    rows = []
    for name, counts in by_size.items():
        without = counts["objects"] - counts["with_prior"]
        shares = [
            _share(counts["found"], counts["objects"]),
            _share(counts["with_prior_found"], counts["with_prior"]),
            _share(counts["found"] - counts["with_prior_found"], without),
        ]
        rows.append(
            [name, str(counts["objects"]), shares[0], str(counts["with_prior"]), shares[1], str(without), shares[2]]
        )
    return _table(
        "recall_by_size",
        "Objects found by a detection of any score with IoU ≥ 0.5, by object side at the network input: of all, "
        f"of those matched by a given prior, and of the others; {about}.",
        ["side\npixels", "objects", "found\n%", "with\nprior", "found\n%", "without\nprior", "found\n%"],
        rows,
    )


def _table(
    name: str,
    caption: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    keys: int = 1,
    left: tuple[int, ...] = (),
) -> Table:
    leading = left or tuple(range(keys))
    return Table(
        name=name,
        caption=caption,
        frame=pd.DataFrame(rows, columns=[head.replace("\n", " ") for head in heads], dtype=object),
        headings=tuple(Heading(name=head, text=head, left=place in leading) for place, head in enumerate(heads)),
        rows=tuple(tuple(Entry(text) for text in row) for row in rows),
        keys=keys,
    )


def _share(part: int, whole: int) -> str:
    return percent(part / whole) if whole else MISSING


def _quantiles(values: Sequence[float] | None, digits: int) -> str:
    return MISSING if values is None else " / ".join(f"{value:.{digits}f}" for value in values)


def _corners(corners: Sequence[float]) -> str:
    return f"({', '.join(f'{corner:g}' for corner in corners)})"
