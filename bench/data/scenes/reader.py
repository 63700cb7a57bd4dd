"""Draw and read the built-in data set: images of shop shelves, annotated by the drawing itself.

It needs no download and has known answers: the knobs set how small, how elongated and how occluded the objects are, so
that one can check whether the suite finds the remedy that must help. All shapes, prints and light are drawn by this
package, without external material.

A set is drawn once, into a cache folder named after a hash of its knobs and of this package's source code.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

import joblib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.index import ImageIndex
from bench.data.readers.reading import Reading
from bench.data.scenes.camera import Objects, photograph
from bench.data.scenes.knobs import SceneKnobs
from bench.data.scenes.packages import PACKAGES
from bench.device.module_path import safe_path
from bench.errors import UserError
from bench.storage.atomic import lock_temporary, remove_abandoned
from bench.storage.reading import ArrayForm, Unreadable, load_arrays

QUALITY = 90  # of the JPEG files
ANNOTATIONS = "annotations.npz"
FORM: ArrayForm = {
    "counts": ("i", ("images",)),
    "boxes": ("f", ("objects", "4")),
    "labels": ("i", ("objects",)),
    "truncated": ("i", ("objects",)),
    "occluded": ("i", ("objects",)),
}
UNFINISHED = re.compile(r"\.scenes-[0-9a-f]{12}-[a-z0-9_]{8}")  # names of folders that are not yet complete
IMAGES_PER_TASK = 8  # starting a worker process costs as much as drawing a dozen images


def read_scenes(knobs: SceneKnobs, cache: Path, *, jobs: int | None = None) -> Reading:
    """The images of `knobs` with their own lists "train" and "val" (three to one), drawn if necessary.

    They are stored in ``cache/scenes-<hash>/``, which appears complete or not at all. jobs: number of drawing processes
    (default: all available cores); the images do not depend on it.
    Raises UserError if the cache cannot be written.
    """
    folder = cache / f"scenes-{_key(knobs)}"
    if not _is_complete(folder, knobs):
        try:
            _draw_into(folder, knobs, jobs or joblib.cpu_count())
        except OSError as error:
            raise UserError(
                f"scenes: cannot write the images to {folder}: {error}; choose another folder with --cache"
            ) from error
    index = _load(folder, knobs)
    validation = _is_validation(len(index))
    return Reading(
        index=index,
        lists={"train": np.flatnonzero(~validation), "val": np.flatnonzero(validation)},
        problems=[],
    )


def _is_validation(images: int) -> NDArray[np.bool_]:
    """(images,) which images are for validation: one of every four in a row, chosen by a hash.

    The share is thus a quarter for any number of images, and an image keeps its side when the set grows.
    """
    numbers = range(images)
    chosen = [hashlib.sha256(b"scene %d" % (number // 4)).digest()[0] % 4 for number in numbers]
    return np.array([number % 4 == choice for number, choice in zip(numbers, chosen, strict=True)], dtype=bool)


def _key(knobs: SceneKnobs) -> str:
    """Hash of the knobs and the drawing code, so that a cache of other code is never used."""
    digest = hashlib.sha256(json.dumps(asdict(knobs), sort_keys=True).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def _is_complete(folder: Path, knobs: SceneKnobs) -> bool:
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if not names >= {ANNOTATIONS, *_names(knobs)}:
        return False
    try:
        _load(folder, knobs)
    except Unreadable:
        return False
    return True


def _names(knobs: SceneKnobs) -> tuple[str, ...]:
    return tuple(f"scene-{number:05d}.jpg" for number in range(knobs.images))


def _draw_into(folder: Path, knobs: SceneKnobs, jobs: int) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder.parent, UNFINISHED)
    unfinished, lock = _locked_folder(folder)
    try:
        numbers = range(knobs.images)
        batches = [numbers[start : start + IMAGES_PER_TASK] for start in range(0, len(numbers), IMAGES_PER_TASK)]
        with safe_path():
            drawn = joblib.Parallel(n_jobs=min(jobs, len(batches)))(
                joblib.delayed(_draw_images)(knobs, batch, unfinished) for batch in batches
            )
        objects: list[Objects] = [one for batch in drawn for one in batch]
        np.savez(
            unfinished / ANNOTATIONS,
            counts=np.array([len(one.labels) for one in objects], dtype=np.int64),
            boxes=np.concatenate([one.boxes for one in objects]),
            labels=np.concatenate([one.labels for one in objects]),
            truncated=np.concatenate([one.truncated for one in objects]),
            occluded=np.concatenate([one.occluded for one in objects]),
        )
        unfinished.chmod(0o755)  # mkdtemp creates private folders, but a cache may be shared
        if folder.exists():  # incomplete, because files were removed; others that a user put there stay
            for name in (*_names(knobs), ANNOTATIONS):
                (unfinished / name).replace(folder / name)
        else:
            unfinished.rename(folder)
    except OSError:
        # Another run may have written the same set in the meantime; either copy will do.
        if not _is_complete(folder, knobs):
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        os.close(lock)


def _locked_folder(folder: Path) -> tuple[Path, int]:
    """A new hidden folder beside `folder` for its images, and a descriptor that locks it."""
    while True:
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        lock = os.open(unfinished, os.O_RDONLY)
        if lock_temporary(unfinished, lock):
            return unfinished, lock
        os.close(lock)


def _draw_images(knobs: SceneKnobs, numbers: range, folder: Path) -> list[Objects]:
    names = _names(knobs)
    objects = []
    for number in numbers:
        photo = photograph(knobs, number)
        Image.fromarray(photo.picture).save(folder / names[number], quality=QUALITY)
        objects.append(photo.objects)
    return objects


def _load(folder: Path, knobs: SceneKnobs) -> ImageIndex:
    stored = load_arrays(folder / ANNOTATIONS, FORM)
    counts, boxes, labels = stored["counts"], stored["boxes"], stored["labels"]
    truncated, occluded = stored["truncated"], stored["occluded"]
    nothing = np.zeros(len(boxes), dtype=np.bool_)
    return ImageIndex(
        root=folder,
        classes=tuple(package.name for package in PACKAGES[: knobs.classes]),
        category_ids=np.arange(1, knobs.classes + 1, dtype=np.int64),
        files=_names(knobs),
        image_ids=np.arange(1, knobs.images + 1, dtype=np.int64),
        sizes=np.tile(np.array([knobs.width, knobs.height], dtype=np.int32), (knobs.images, 1)),
        offsets=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)]),
        boxes=boxes,
        labels=labels,
        areas=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
        crowd=nothing,
        difficult=nothing.copy(),
        truncated=truncated,
        occluded=occluded,
    )
