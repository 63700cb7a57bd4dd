"""Where the annotations and images of each list lie, and what kind of annotation file one is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.data.paths import is_file

WHOLE = "whole"  # the only part of a data set without lists
SAMPLE = 50  # images whose existence decides in which folder they are
HEAD = 4096  # bytes of an annotation file that show of which kind it is

# How folders and files of a list are called.
SPELLINGS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}

# Each part can match in one way only: files of strangers must not make the search slow.
_PROLOGUE = r"(?:<\?[^>]*>|<!--(?:(?!-->).)*-->|\s)*"
# The first match counts. LabelMe, VIA, CreateML and Label Studio are not read, but recognised.
_CONTENTS = (
    ("coco", r'\s*\{\s*"(info|licenses|images|annotations|categories|type)"\s*:'),
    ("fiftyone", r'\s*\{\s*"(classes|labels)"\s*:'),
    ("labelme", r'\s*\{.*"shapes"\s*:'),
    ("via", r'\s*\{\s*"(_via_[a-z_]+"|[^"]+"\s*:\s*\{\s*"(filename|fileref)")'),
    ("coco-results", r'\s*\[\s*\{[^{}]*"(image_id|bbox|score)"\s*:'),
    ("createml", r'\s*\[\s*\{.*"coordinates"\s*:'),
    ("label-studio", r'\s*\[\s*\{.*"(annotations|completions|rectanglelabels|label)"\s*:'),
    ("table", r"(?!\s*[\[{<])(?:[^\n]*\b(?i:xmin|x_min|x1)\b|[^\n,;\t]+(?:[,;\t][-\d.]*){4}[,;\t][^\n,;\t]*(?:\n|$))"),
    ("cvat", rf"{_PROLOGUE}<annotations[\s>]"),
    ("voc", rf"{_PROLOGUE}<annotation[\s>]"),
)
CONTENTS = tuple((kind, re.compile(pattern, re.DOTALL)) for kind, pattern in _CONTENTS)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One list of a data set; names are relative to the root of the set, with forward slashes, "" for the root itself.

    annotations: a file, or a folder with a file for each image.
    images: folders that may hold the images, the likeliest first.
    """

    annotations: str
    images: tuple[str, ...]


def list_name(stem: str) -> str | None:
    """The list that a folder or file belongs to by its name, for example "val" for `valid` and `instances_val2017`."""
    word = stem.casefold().removeprefix("instances_").rstrip("0123456789")
    return next((name for name, spellings in SPELLINGS.items() if word in spellings), None)


def content_of(file: Path) -> str | None:
    """The kind of a JSON, XML or CSV file by its first bytes; None if it is of no known kind or cannot be read."""
    if not is_file(file):
        return None
    try:
        with file.open("rb") as opened:
            head = opened.read(HEAD).decode("utf-8-sig", errors="replace")
    except OSError:
        return None
    return next((kind for kind, pattern in CONTENTS if pattern.match(head)), None)


def images_below(root: Path, folders: Sequence[str], names: Sequence[str]) -> list[str]:
    """The image files, relative to `root`: each name in that of the `folders` that has most of the first images.

    Exports also name images by a path on another machine. If no folder has one of these, only their last part counts.
    """
    last_parts = [name.rpartition("/")[2] for name in names]
    for spelling in (names, last_parts):
        sample = [name for name in spelling[:SAMPLE] if not name.startswith("/")]
        hits = [sum(is_file(root / folder / name) for name in sample) for folder in folders]
        if any(hits):
            folder = folders[hits.index(max(hits))]
            return [f"{folder}/{name}" if folder else name for name in spelling]
    return [f"{folders[0]}/{name}" if folders[0] else name for name in names]
