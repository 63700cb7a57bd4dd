"""The split into training and validation images: made once, saved, the same for every cell.

The data's own lists take precedence. Without them, images are divided by iterative stratification (Sechidis, Tsoumakas
and Vlahavas 2011, "On the stratification of multi-label data", algorithm 1): a random split of a small set would leave
rare classes on one side only, with an undefined AP. Groups of near-duplicates stay together, so that a mirrored copy
of a training image is never scored.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.index import BOX_FIELDS, ImageIndex
from bench.data.readers.reading import Reading
from bench.errors import UserError, nearest
from bench.options import VAL_FRACTION
from bench.storage.atomic import write_json
from bench.storage.forms import SplitForm, mismatch
from bench.storage.reading import Unreadable, load_json, reason_of

SCHEMA = 1
TRAIN, VAL = 0, 1
TRAINED = ("train", "trainval")  # lists to train on
NAMED = 5  # files named in an error


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """The two sides of a split.

    train, val: rows of the index, ascending and disjoint.
    val_groups: (len(val),) group of near-duplicates of each validation image, from 0 in the order of first images. They
        are not independent, which the bootstrap must know.
    origin: how the split was made, for the report.
    fingerprint: changes with any image, box or class of either side (see ImageIndex.fingerprint).
    """

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    val_groups: NDArray[np.int64]
    origin: str
    fingerprint: str


def make_split(
    reading: Reading,
    *,
    val_fraction: float = VAL_FRACTION,
    seed: int = 0,
    eval_list: str | None = None,
    groups: NDArray[np.int64] | None = None,
) -> Split:
    """Use the data's own train and val lists if both exist, otherwise stratify.

    eval_list: evaluate on this list of the data (for example "test") instead of val.
    groups: (N,) group of each image (near_duplicates.groups_of). A stratified split keeps each group on one side,
        unless the group is larger than the training side, as with images of one fixed camera.
    Raises UserError if `eval_list` does not exist, a side would be empty, or val_fraction is not between 0 and 1.
    """
    index = reading.index
    groups = np.arange(len(index)) if groups is None else groups
    own = own_lists(reading, eval_list)
    if own is not None:
        train, val, origin = own
    else:
        if not 0 < val_fraction < 1:
            raise UserError(f"The validation fraction is {val_fraction}. It must be between 0 and 1, for example 0.2.")
        pool = _pool(reading.lists, len(index))
        grouped = _divisible(groups[pool], max(len(pool) * (1 - val_fraction), 1))
        sides = stratify(_presence(index, pool), val_fraction, seed, grouped)
        train, val = pool[sides == TRAIN], pool[sides == VAL]
        origin = f"stratified by class, seed {seed}, fraction {val_fraction:g}"
        duplicates = _grouped_images(grouped)
        if duplicates:
            origin += f", {duplicates} near-duplicates kept together"
    for name, rows in (("training", train), ("validation", val)):
        if not len(rows):
            raise UserError(
                f"The {name} side of the split ({origin}) is empty; usable images: {len(index)}. "
                "Add images, or change the lists or --val-fraction."
            )
    grouped = _divisible(groups[np.concatenate((val, train))], len(train))
    return Split(
        train=train,
        val=val,
        val_groups=_by_first_image(grouped[: len(val)]),
        origin=origin,
        fingerprint=_fingerprint(index, train, val),
    )


def own_lists(reading: Reading, eval_list: str | None) -> tuple[NDArray[np.int64], NDArray[np.int64], str] | None:
    """Training rows, validation rows and origin of the data's own split; None if the data lack one of the lists.

    Raises UserError if `eval_list` does not exist or no list is left to train on.
    """
    lists = reading.lists
    if eval_list is not None and eval_list not in lists:
        existing = ", ".join(lists) or "none"
        hint = nearest(eval_list, lists)
        raise UserError(f"The data have no list {eval_list!r} to evaluate on{hint}. Existing lists: {existing}.")
    evaluated = eval_list or "val"
    if evaluated in lists and evaluated != "train" and ("train" in lists or "trainval" in lists):
        trained = "train" if "train" in lists else "trainval"
        val = lists[evaluated]
        return np.setdiff1d(lists[trained], val), val, f"the data's own lists {trained} and {evaluated}"
    if eval_list is not None:
        raise UserError(
            f"With --eval-list {eval_list} no list is left to train on: the data's lists are {', '.join(lists)}. "
            "Train and evaluate on different lists."
        )
    return None


def evaluation_side(
    reading: Reading,
    *,
    val_fraction: float = VAL_FRACTION,
    eval_list: str | None = None,
    all_images: bool = False,
    groups: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], str]:
    """Rows of the images to score detections on, their groups as in `Split.val_groups`, and how they were chosen.

    These are all images if `all_images`, otherwise the validation side of `make_split`. Because nothing is trained,
    the data may have no list to train on, and `eval_list` may be such a list.
    Raises UserError if `eval_list` does not exist, or no image is left.
    """
    lists, name = reading.lists, eval_list or "val"
    stands_alone = name in lists and (name in TRAINED or lists.keys().isdisjoint(TRAINED))
    if not (all_images or stands_alone):
        split = make_split(reading, val_fraction=val_fraction, eval_list=eval_list, groups=groups)
        return split.val, split.val_groups, f"validation split ({split.origin})"
    rows = np.arange(len(reading.index)) if all_images else lists[name]
    origin = "all images" if all_images else f"the data's own list {name}"
    if not len(rows):
        raise UserError(f"No usable image to evaluate on ({origin}). Add images, or choose another --eval-list.")
    return rows, _by_first_image(groups[rows]), origin


def stratify(
    presence: NDArray[np.bool_], val_fraction: float, seed: int, groups: NDArray[np.int64] | None = None
) -> NDArray[np.int8]:
    """Assign each image to TRAIN or VAL; returns (N,).

    presence: (N, C), which classes each image contains.
    groups: (N,); images of the same group stay on one side. By default each image is its own group.

    Classes are assigned from the rarest to the most common; for each, its groups go, large ones first, to the side
    that still needs the class most. Images without boxes come last. Then a class with two or more groups that is on one
    side only is moved to both, if moving a single group does so without removing another class from a side. The sizes
    of the sides are as requested, to within one group.
    """
    units = np.arange(len(presence)) if groups is None else _by_first_image(groups)
    count, class_count = int(units.max(initial=-1)) + 1, presence.shape[1]
    sizes = np.bincount(units, minlength=count)
    images_with: NDArray[np.int64] = np.zeros((count, class_count), dtype=np.int64)
    np.add.at(images_with, units, presence)

    shuffled = np.random.default_rng(seed).permutation(count)
    # Small groups come last, to even out the sizes of the sides.
    shuffled = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    rows, labels = np.nonzero(images_with[shuffled])
    starts = np.searchsorted(rows, np.arange(count + 1)).tolist()
    classes_and_images = list(zip(labels.tolist(), images_with[shuffled[rows], labels].tolist(), strict=True))
    classes_of = [classes_and_images[starts[at] : starts[at + 1]] for at in range(count)]
    groups_with = [np.flatnonzero(images_with[shuffled, label]).tolist() for label in range(class_count)]
    size_of = sizes[shuffled].tolist()

    totals = images_with.sum(axis=0).astype(np.float64)
    # A class with two or more groups needs one on each side, however small its share.
    divisible = (images_with > 0).sum(axis=0) >= 2
    val_wanted = np.where(divisible, np.clip(totals * val_fraction, 1, np.maximum(totals - 1, 1)), 0)
    wanted = [(totals - val_wanted).tolist(), val_wanted.tolist()]
    val_room = min(max(len(presence) * val_fraction, 1), len(presence) - 1)
    room = [len(presence) - val_room, val_room]
    sides: list[int | None] = [None] * count

    def place(at: int, side: int) -> None:
        sides[at] = side
        room[side] -= size_of[at]
        for label, images in classes_of[at]:
            wanted[side][label] -= images
            remaining[label] -= 1

    remaining = [len(having) for having in groups_with]
    while any(remaining):
        rarest = min((label for label in range(class_count) if remaining[label]), key=lambda label: remaining[label])
        for at in groups_with[rarest]:
            if sides[at] is None:
                more = (wanted[VAL][rarest], room[VAL]) > (wanted[TRAIN][rarest], room[TRAIN])
                place(at, VAL if more else TRAIN)
    for at in range(count):
        if sides[at] is None:
            place(at, VAL if room[VAL] > room[TRAIN] else TRAIN)

    result = np.empty(count, dtype=np.int8)
    result[shuffled] = np.array(sides, dtype=np.int8)
    if 1 < count < len(presence) and len(set(result.tolist())) == 1:
        # With few large groups a side can stay empty: move the group with the fewest classes, then images.
        result[np.lexsort((sizes, (images_with > 0).sum(axis=1)))[0]] ^= 1
    return _bring_to_both_sides(images_with > 0, result, sizes)[units]


def _bring_to_both_sides(
    presence: NDArray[np.bool_], sides: NDArray[np.int8], sizes: NDArray[np.int64]
) -> NDArray[np.int8]:
    """Move groups so that classes on one side only reach both; returns (G,) sides.

    presence: (G, C). sizes: (G,) number of images.
    """
    sides = sides.copy()
    on = np.stack([presence[sides == side].sum(axis=0) for side in (TRAIN, VAL)])
    moved = True
    # Each move adds a missing class to a side and removes none, so there are at most C moves.
    while moved:
        moved = False
        for to, label in np.argwhere((on == 0) & (on.sum(axis=0) >= 2)).tolist():
            if on[to, label]:
                continue
            origin = 1 - to
            last_there = (on[origin] == 1) & (on[to] > 0)  # classes with a single group on the side of origin
            candidates = np.flatnonzero(presence[:, label] & (sides == origin))
            candidates = candidates[~presence[candidates][:, last_there].any(axis=1)]
            if len(candidates):
                chosen = candidates[np.lexsort((presence[candidates].sum(axis=1), sizes[candidates]))[0]]
                sides[chosen] = to
                on[to] += presence[chosen]
                on[origin] -= presence[chosen]
                moved = True
    return sides


def save(split: Split, index: ImageIndex, path: Path) -> None:
    """Write split.json: origin, fingerprint, and for each side the file names and a digest of each image.

    The validation side also has the group of near-duplicates of each image.
    """
    digests = image_digests(index)
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "origin": split.origin,
        "fingerprint": split.fingerprint,
        "classes": list(index.classes),
        **{
            side: {
                "files": [index.files[row] for row in rows.tolist()],
                "digests": [digests[row] for row in rows.tolist()],
            }
            for side, rows in (("train", split.train), ("val", split.val))
        },
    }
    content["val"]["groups"] = split.val_groups.tolist()
    write_json(path, content)


def load(path: Path, index: ImageIndex) -> Split:
    """Read split.json and find its images in `index` by file name.

    Raises UserError if the file cannot be read, or if images, boxes or classes have changed since it was written; the
    error says what changed. In a file of an earlier version every image is its own group.
    """
    try:
        content = load_json(path)
        if fault := mismatch(content, SplitForm):
            raise ValueError(fault)
    except (Unreadable, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as a split ({reason_of(error)}). Remove it, or choose another --out."
        ) from error
    sides = {side: (content[side]["files"], content[side]["digests"]) for side in ("train", "val")}
    classes, origin, fingerprint = tuple(content["classes"]), content["origin"], content["fingerprint"]
    groups = content["val"].get("groups", range(len(content["val"]["files"])))
    schema = content["schema"]
    if schema != SCHEMA:
        raise UserError(f"{path} has schema {schema}; this version reads {SCHEMA}. Choose another --out.")
    changes = []
    if classes != index.classes:
        changes.append(f"the classes were {', '.join(classes)}, now {', '.join(index.classes)}")
    row_of = {file: row for row, file in enumerate(index.files)}
    digests = image_digests(index)
    rows = {}
    for side, (files, old_digests) in sides.items():
        missing = [file for file in files if file not in row_of]
        changed = [
            file
            for file, digest in zip(files, old_digests, strict=False)
            if file in row_of and digests[row_of[file]] != digest
        ]
        if missing:
            changes.append(f"{len(missing)} images of {side} are missing ({some(missing)})")
        if changed:
            changes.append(f"{len(changed)} images of {side} have another size or other boxes ({some(changed)})")
        rows[side] = np.array([row_of[file] for file in files if file in row_of], dtype=np.int64)
    if not changes and _fingerprint(index, rows["train"], rows["val"]) != fingerprint:
        changes.append("the file itself was edited")
    if changes:
        raise UserError(
            f"The data have changed since {path} was written: {'; '.join(changes)}. "
            "Restore the data, or start a new run with another --out."
        )
    return Split(
        train=rows["train"],
        val=rows["val"],
        val_groups=np.array(groups, dtype=np.int64),
        origin=origin,
        fingerprint=fingerprint,
    )


def image_digests(index: ImageIndex) -> list[str]:
    """N short digests, each of one image's size and boxes, to identify changed images."""
    columns = [np.round(getattr(index, name).astype(np.float64), 2) for name in BOX_FIELDS]
    table = np.concatenate([column.reshape(len(index.boxes), -1) for column in columns], axis=1)
    starts = index.offsets.tolist()
    return [
        f"{zlib.crc32(table[start:end].tobytes(), zlib.crc32(size.tobytes())):08x}"
        for start, end, size in zip(starts[:-1], starts[1:], index.sizes, strict=True)
    ]


def _fingerprint(index: ImageIndex, train: NDArray[np.int64], val: NDArray[np.int64]) -> str:
    both = "/".join(index.take(rows).fingerprint() for rows in (train, val))
    return hashlib.sha256(both.encode()).hexdigest()[:16]


def _presence(index: ImageIndex, pool: NDArray[np.int64]) -> NDArray[np.bool_]:
    presence = np.zeros((len(index), len(index.classes)), dtype=np.bool_)
    presence[index.image_of_box, index.labels] = True
    return presence[pool]


def _by_first_image(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) the groups renumbered from 0 in the order of their first images."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def _divisible(groups: NDArray[np.int64], train_size: float) -> NDArray[np.int64]:
    """(N,) groups, with each group that is larger than the training side split into single images."""
    _, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    too_large = sizes[inverse] > train_size
    return np.where(too_large, len(sizes) + np.arange(len(groups)), inverse)


def _grouped_images(groups: NDArray[np.int64]) -> int:
    """Number of images in groups of two or more."""
    _, sizes = np.unique(groups, return_counts=True)
    return int(sizes[sizes > 1].sum())


def _pool(lists: dict[str, NDArray[np.int64]], count: int) -> NDArray[np.int64]:
    """The images to divide, without those of a test list."""
    for name in ("train", "trainval"):
        if name in lists:
            return lists[name]
    return np.setdiff1d(np.arange(count), lists.get("test", np.zeros(0, dtype=np.int64)))


def some(files: list[str]) -> str:
    """The first few file names, for a message."""
    return ", ".join(files[:NAMED]) + (", ..." if len(files) > NAMED else "")
