"""What can be wrong with a data set, how bad it is, and what to do about it.

Readers and the preflight collect `Problem`s instead of raising at the first one, so that a user sees all of them
at once. `KINDS` is the one place for severities; the kinds of undecodable images, all fatal, are in decode.py.

fatal   stops with exit status 2; with ``--skip-invalid`` the item is left out
drop    the box or image is left out and counted
repair  fixed in memory and counted; files are never rewritten
warning nothing is left out or changed, but the results would mislead
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.errors import visible

Severity = Literal["fatal", "drop", "repair", "warning"]
SEVERITIES: tuple[Severity, ...] = ("fatal", "drop", "repair", "warning")
MAX_SHOWN = 300  # characters of a file name or finding in a message

# Each kind with its severity and remedy.
KINDS: dict[str, tuple[Severity, str]] = {
    "duplicate-image": ("fatal", "give every image file exactly one annotation entry"),
    "duplicate-image-id": ("fatal", "give every image its own id; their boxes cannot be told apart"),
    "duplicate-annotation-id": ("fatal", "give every annotation its own id"),
    "annotation-of-unknown-image": ("fatal", "add the image to 'images', or remove the annotation"),
    "unreadable-name": ("fatal", "rename the file: its name is not valid text"),
    "unreadable-annotation": ("fatal", "repair the file, or remove it together with its image"),
    "listed-without-annotation": ("fatal", "add the annotation, or remove the name from the list"),
    "image-in-two-lists": ("fatal", "remove it from one of the lists: it would be used for training and validation"),
    "missing-image": ("fatal", "restore the image, or remove its annotation"),
    "unknown-class": ("fatal", "correct the class, or add it to the classes of the data set"),
    "non-finite-box": ("fatal", "give the box four finite numbers, or remove it"),
    "inverted-box": ("fatal", "swap the corners (the first must be top left), or remove the box"),
    "not-normalised": ("fatal", "divide by the image's width and height: YOLO coordinates go from 0 to 1"),
    "bad-label-line": ("fatal", "write 'class cx cy w h', or 'class x1 y1 x2 y2 x3 y3 ...' for a polygon"),
    "no-images": ("fatal", "add images, or fix those above"),
    "no-training-images": ("fatal", "add images to the training split, or remove those that are also in val"),
    "no-boxes": ("fatal", "check that the annotations are where the format expects them"),
    "zero-area-box": ("drop", "remove the box, or give it a width and height"),
    "box-outside-image": ("drop", "check that the annotation belongs to this image"),
    "image-without-annotation": ("drop", "annotate it; an image without objects needs an empty annotation"),
    "annotation-in-no-list": ("drop", "add the names to a list if they should be used"),
    "box-out-of-bounds": ("repair", "clipped to the image; nothing to do if the excess is small"),
    "polygon-to-box": ("repair", "the polygon's bounding box is used; nothing to do"),
    "latin-1-annotation": ("repair", "read as Latin-1; save the file as UTF-8"),
    "size-from-header": ("repair", "the image header's size is used; write the size into the annotation"),
    "area-from-box": ("repair", "the box's area is used; export the segment's area for COCO's size ranges"),
    "unclear-crowd": ("repair", "taken as 0, an object; write 1 for a region of many objects and 0 for others"),
    "duplicate-list-entry": ("repair", "counted once; remove the repetition"),
    "several-images-for-annotation": ("repair", "keep one image file for each annotation"),
    "image-ids-renumbered": ("repair", "those of train are replaced; give train and val disjoint ids"),
    "placeholder-class": ("repair", "it is left out of the classes; nothing to do"),
    "class-without-training-boxes": (
        "repair",
        "move some of its images to train; until then its AP is 0 and lowers the mean",
    ),
    "grey-image": ("repair", "grey is repeated in three channels; nothing to do"),
    "one-bit-image": ("repair", "its two values become black and white; nothing to do"),
    "palette-image": ("repair", "the colours are looked up; nothing to do"),
    "alpha-image": ("repair", "composited on white; flatten it if that is the wrong background"),
    "cmyk-image": ("repair", "converted without a colour profile; better saved as RGB"),
    "deep-grey-image": ("repair", "its full range becomes 0 to 255; nothing to do"),
    "colour-space-image": ("repair", "converted to RGB; better saved as RGB"),
    "exif-orientation": ("repair", "rotated upright, as it was annotated; nothing to do"),
    "near-duplicates-across-split": (
        "warning",
        "AP on them measures memorisation: remove them from one side (run_all.py preflight lists them all), or remove "
        "the split lists: the built-in split keeps near-duplicates together unless they are nearly the whole set",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong with a data set."""

    severity: Severity
    kind: str  # short stable name, e.g. "inverted-box"
    where: str  # file, and the id or line in it
    what: str  # what was found
    remedy: str  # what to do about it


def problem(kind: str, where: str, what: str) -> Problem:
    """A `Problem` of one of the `KINDS`, with that kind's severity and remedy."""
    severity, remedy = KINDS[kind]
    return Problem(severity=severity, kind=kind, where=printable(where), what=printable(what), remedy=remedy)


def printable(text: str) -> str:
    """The text as one line that any terminal or file accepts, at most MAX_SHOWN characters and an ellipsis."""
    line = visible(text).replace("\n", "\\n")
    return line if len(line) <= MAX_SHOWN else f"{line[:MAX_SHOWN]}..."
