"""A diagnosis.json as a ranked list and tables, in the terminal and as diagnosis.md, and its plots."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table as Shown
from rich.text import Text

from bench.data.subsets import SIZES
from bench.report.tables.columns import per_cent
from bench.report.tables.typeset import MISSING, Entry, Heading, Table, escape_markdown, markdown_text
from bench.storage.atomic import replacing

MOST_CLASSES = 12  # rows of a table by class in the terminal
WIDTH = 110  # of the ranked list at most: longer lines are hard to read
INDENT = " " * 5
STYLES = {"serious": "bold red", "notable": "yellow", "minor": "", "fine": "green"}


def diagnosis_tables(content: Mapping[str, Any]) -> list[Table]:
    """The tables of a diagnosis.json, in the order in which they are shown; those of detections where there are any."""
    tables = [_sizes(content), _priors(content), _classes(content), _suspects(content)]
    scored = content.get("detections")
    return tables if scored is None else [*tables, *_scores(scored)]


def print_diagnosis(content: Mapping[str, Any], console: Console) -> None:
    """Tables, and beneath them, where the eye rests, the ranked list. Of many classes the rarest are shown."""
    for table in diagnosis_tables(content):
        few = table
        if table.name.endswith("classes") and len(table.rows) > MOST_CLASSES:
            caption = f"{table.caption} Here the first {MOST_CLASSES} of {len(table.rows)}; all in diagnosis.md."
            few = replace(table, rows=table.rows[:MOST_CLASSES], caption=caption)
        console.print(Text(f"\n{few.caption}"))
        shown = Shown(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for heading in few.headings:
            shown.add_column(Text(heading.text), justify="left" if heading.left else "right")
        for row in few.rows:
            shown.add_row(*(Text(entry.text, style="dim" if entry.text == MISSING else "") for entry in row))
        console.print(shown)
    console.print(Text(f"\n{_title(content)}: what the data say, the worst first\n"))
    width = min(WIDTH, console.width - 1)
    for place, finding in enumerate(content["findings"], 1):
        severity, head = finding["severity"], f"{place:>3}. {finding['severity']}: "
        wrapped = Text(textwrap.fill(f"{head}{finding['sentence']}.", width, subsequent_indent=INDENT))
        wrapped.stylize(STYLES[severity], len(head) - len(severity) - 2, len(head) - 2)
        console.print(wrapped)
        remedy = f"What to do: {finding['remedy']}."
        console.print(Text(textwrap.fill(remedy, width, initial_indent=INDENT, subsequent_indent=INDENT), style="dim"))
    if not content["findings"]:
        console.print("  nothing that would explain a low mAP")


def write_markdown(content: Mapping[str, Any], path: Path) -> None:
    """The same as a page: the ranked list first, then every table in full."""
    lines = [f"# {escape_markdown(_title(content))}: what the data say", ""]
    for place, finding in enumerate(content["findings"], 1):
        sentence, remedy = (escape_markdown(finding[key]) for key in ("sentence", "remedy"))
        lines.append(f"{place}. **{finding['severity']}**: {sentence}. *What to do:* {remedy}.")
    lines += ["", *(markdown_text(table) for table in diagnosis_tables(content))]
    lines += [f"![{name}](plots/{name}.png)" for name in ("object_sizes", "object_shapes")]
    with replacing(path) as file:
        file.write(("\n".join(lines) + "\n").encode())


def _title(content: Mapping[str, Any]) -> str:
    sides = content["sides"]
    counted = " and ".join(f"{sides[side]['images']} {words}" for side, words in _SIDES.items())
    return f"{content['data']} ({counted} images; {content['split_origin']}; priors {content['priors']})"


_SIDES = {"train": "training", "val": "validation"}


def _sizes(content: Mapping[str, Any]) -> Table:
    size = content["detector"]["size"]
    rows = []
    for side, words in _SIDES.items():
        own = content["sizes"][side]
        for where, suffix in (("photographs", ""), (f"{size} × {size}", "_network")):
            shares = [_share(own[f"coco{suffix}"][name], own["objects"]) for name in SIZES]
            quantiles = [_quantiles(own[f"{name}{suffix}"], digits) for name, digits in (("side", 0), ("ratio", 2))]
            rows.append([words, where, str(own["objects"]), *shares, *quantiles])
    return _table(
        "sizes",
        "Objects in the photographs' pixels and at the network: small is under 32², large from 96² pixels; side: of a "
        "square of equal area; 5%, median and 95%.",
        ["split", "in", "objects", *(f"{name}\n%" for name in SIZES), "side\npixels", "width by\nheight"],
        rows,
        keys=2,
    )


def _priors(content: Mapping[str, Any]) -> Table:
    matchable = content["matchable"]
    rows = []
    for place, words in (("val", "validation images"), ("views", "training views")):
        given, fitted = (
            {"all": matchable[priors][place]["all"], **matchable[priors][place]["by_size"]}
            for priors in ("given", "fitted")
        )
        for name, own in given.items():
            shares = [_share(each["matched"], each["objects"]) for each in (own, fitted[name])]
            means = [_mean(each["priors_mean"]) for each in (own, fitted[name])]
            rows.append([words, name, str(own["objects"]), *shares, *means])
    return _table(
        "matchable",
        f"Objects, by their side at the network, that a prior matches with IoU ≥ {matchable['threshold']}, and how "
        "many priors answer for one on average: the given priors, and tuned ones (fitted to the training images). On "
        f"whole validation images and on {matchable['views']} views as the training's augmentation makes them.",
        ["in", "side\npixels", "objects", "matched\n%", "tuned:\nmatched %", "priors\neach", "tuned:\neach"],
        rows,
        keys=2,
    )


def _classes(content: Mapping[str, Any]) -> Table:
    rows = []
    given, fitted = (content["matchable"][priors]["val"]["by_class"] for priors in ("given", "fitted"))
    for each in sorted(content["classes"], key=lambda row: (row["val"], row["train"])):
        own, tuned = given[each["class"]], fitted[each["class"]]
        side = MISSING if each["side_network"] is None else f"{each['side_network']:.0f}"
        counts = [str(each[key]) for key in ("train", "train_images", "val", "val_images")]
        shares = [_share(table["matched"], table["objects"]) for table in (own, tuned)]
        rows.append([each["class"], *counts, side, *shares])
    lost = content["crowding"]["val"]["suppressed_by_class"]
    return _table(
        "classes",
        "Classes, the rarest in validation first: objects and images (in validation those that are scored), median "
        "side at the network, validation objects that the given and tuned priors match, and those that suppression "
        "must lose.",
        [
            *("class", "train\nobjects", "train\nimages", "val\nobjects", "val\nimages", "side\npixels"),
            *("matched\n%", "tuned:\nmatched %", "lost"),
        ],
        [[*row, str(lost.get(row[0], 0))] for row in rows],
    )


def _suspects(content: Mapping[str, Any]) -> Table:
    rows = []
    for kind, words in content["suspect_kinds"].items():
        own = [content["suspects"][side]["kinds"][kind] for side in _SIDES]
        first = next((entry for side in own for entry in side["listed"]), None)
        example = MISSING if first is None else f"{Path(first['file']).name}: {first['class']} {_corners(first['box'])}"
        rows.append([words, *(str(side["count"]) for side in own), example])
    empty = [content["suspects"][side]["empty_images"] for side in _SIDES]
    example = next((Path(name).name for side in empty for name in side["listed"]), MISSING)
    rows.append(["images without boxes (right, where nothing is there)", *(str(e["count"]) for e in empty), example])
    return _table(
        "suspects",
        "Annotations that are legal and suspicious; each is named in diagnosis.json.",
        ["what", "train", "val", "for example"],
        rows,
        left=(0, 3),
    )


def _scores(scored: Mapping[str, Any]) -> list[Table]:
    accuracy = scored["accuracy"]
    counts = accuracy["ground_truths"]
    overall = ["all", _percent(accuracy["AP"]), _percent(accuracy["AP50"]), _percent(accuracy["AP75"])]
    by_size = [
        [
            *(f"{name}, {words}", _percent(accuracy[f"AP_{name}{suffix}"]), MISSING, MISSING),
            *(_percent(accuracy.get(f"AR_{name}{suffix}")), str(counts[f"{name}{suffix}"])),
        ]
        for suffix, words in (("", "photographs"), ("_network", "network"))
        for name in SIZES
    ]
    by_class = [
        [name, *(_percent(own[key]) for key in ("AP", "AP50", "AP75", "AR_100")), str(own["ground_truths"])]
        for name, own in sorted(accuracy["per_class"].items(), key=lambda pair: (pair[1]["AP"] is None, pair[1]["AP"]))
    ]
    heads = ["AP\n%", "AP50\n%", "AP75\n%", "AR\n%", "objects"]
    elsewhere = f" ({scored['elsewhere']} on other images are left out)" if scored["elsewhere"] else ""
    about = f"the {scored['detections']} detections of {scored['file']} on validation images{elsewhere}"
    return [
        _table(
            "scores",
            f"AP and recall (AR, 100 detections an image and class) of {about}, by size.",
            ["objects", *heads],
            [[*overall, _percent(accuracy["AR_100"]), str(counts["all"])], *by_size],
        ),
        _found(scored["found"], about),
        _errors(scored["errors"], about),
        _table("scored_classes", f"The same by class, the lowest AP first, of {about}.", ["class", *heads], by_class),
    ]


def _errors(errors: Mapping[str, Any], about: str) -> Table:
    rows = [[kind, str(own["count"]), _percent(own["dAP50"])] for kind, own in errors.items()]
    return _table(
        "scored_errors",
        "Errors, by type as in TIDE (docs/errors.md): points of AP50 that mending all of one type, and nothing "
        f"else, would give back; {about}.",
        ["errors", "number", "points\nof AP50"],
        rows,
    )


def _found(found: Mapping[str, Any], about: str) -> Table:
    rows = []
    for name, own in found.items():
        without = own["objects"] - own["with_prior"]
        shares = [
            _share(own["found"], own["objects"]),
            _share(own["with_prior_found"], own["with_prior"]),
            _share(own["found"] - own["with_prior_found"], without),
        ]
        rows.append([name, str(own["objects"]), shares[0], str(own["with_prior"]), shares[1], str(without), shares[2]])
    return _table(
        "found",
        "Objects, by their side at the network, that some detection of whatever score finds with IoU ≥ 0.5: of all, of "
        f"those that a given prior matches, and of the others; {about}.",
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
    return per_cent(part / whole) if whole else MISSING


def _percent(value: float | None) -> str:
    return MISSING if value is None else per_cent(value)


def _mean(value: float | None) -> str:
    return MISSING if value is None else f"{value:.1f}"


def _quantiles(values: Sequence[float] | None, digits: int) -> str:
    return MISSING if values is None else " / ".join(f"{value:.{digits}f}" for value in values)


def _corners(corners: Sequence[float]) -> str:
    return f"({', '.join(f'{corner:g}' for corner in corners)})"
