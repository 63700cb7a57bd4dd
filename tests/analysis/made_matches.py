"""Matches sampled from a known population: several models evaluated on the same ground truths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.data.subsets import NETWORK_SIZES, SIZES
from bench.evaluation.matches import Matches

AREAS = ("all", *SIZES, *NETWORK_SIZES)


def draw_matches(
    rng: np.random.Generator,
    skills: Sequence[float],
    *,
    images: int = 80,
    classes: int = 3,
    thresholds: int = 10,
    false: float = 12.0,
    sizes: bool = False,
    copies: int = 1,
    leaning: NDArray[np.float64] | None = None,
) -> list[Matches]:
    """Matches of one model per skill on one sample of images.

    Image and object difficulty is shared by all models, and each model adds independent noise. Two models of equal
    skill therefore differ in every sample but not in the population.
    Labels do not depend on anything else: in the population all classes have the same AP.
    false: mean number of false positives per image. sizes: add area ranges besides "all".
    copies: number of identical frames of each scene; frames k * copies to (k + 1) * copies - 1 are scene k.
    leaning: (models, scenes) change of skill on each scene, for models that share what they find easy.
    """
    assert images % copies == 0, (images, copies)
    scenes = images // copies
    counts = 1 + rng.poisson(3, scenes)
    truth_image = np.repeat(np.arange(scenes), counts)
    total = len(truth_image)
    truth_label = rng.choice(classes, total, p=_shares(classes)).astype(np.int32)
    truth_size = rng.integers(0, 3, total)
    hard = rng.normal(0, 0.6, scenes)
    ease = hard[truth_image] + rng.normal(0, 0.7, total) + 0.3 * truth_size
    ious = np.linspace(0.5, 0.95, thresholds)
    areas = AREAS if sizes else AREAS[:1]
    result = []
    for model, skill in enumerate(skills):
        own = 0.0 if leaning is None else leaning[model][truth_image]
        quality = ease + skill + own + rng.normal(0, 0.6, total)
        found = quality > -1.5
        strays = rng.poisson(false * np.exp(-0.3 * hard))
        image = np.concatenate((truth_image[found], np.repeat(np.arange(scenes), strays)))
        label = np.concatenate((truth_label[found], rng.choice(classes, strays.sum(), p=_shares(classes))))
        size = np.concatenate((truth_size[found], rng.integers(0, 3, strays.sum())))
        certainty = np.concatenate(
            (0.8 * quality[found] + rng.normal(0.6, 0.7, found.sum()), rng.normal(-0.9, 0.9, strays.sum()))
        )
        iou = np.concatenate((1 / (1 + np.exp(-0.6 - quality[found])), np.zeros(strays.sum())))
        score = (1 / (1 + np.exp(-certainty))).astype(np.float32)
        image = _frames(image, copies)
        label, size, score, iou = (np.repeat(values, copies) for values in (label, size, score, iou))
        order = np.lexsort((-score, label))
        image, label, size, score, iou = image[order], label[order], size[order], score[order], iou[order]
        right = iou >= ious[:, None]
        outside = np.stack([_outside(size, area) for area in areas])
        result.append(
            Matches(
                classes=tuple(f"class {k}" for k in range(classes)),
                image_ids=np.arange(1, images + 1),
                areas=areas,
                thresholds=ious,
                detection=order,
                image=image,
                label=label.astype(np.int32),
                score=score,
                # Matches to ground truths outside the size range are ignored, as are false positives outside it.
                matched=np.repeat(right[None], len(areas), axis=0),
                ignored=np.repeat(outside[:, None], thresholds, axis=1),
                truth=np.where(right, 0, -1),
                truth_image=_frames(truth_image, copies),
                truth_label=np.repeat(truth_label, copies),
                truth_ignored=np.stack([_outside(np.repeat(truth_size, copies), area) for area in areas]),
            )
        )
    return result


def _frames(scene: NDArray[np.int64], copies: int) -> NDArray[np.int64]:
    """The images of scenes (K,), each repeated for its frames: (K * copies,)."""
    return (scene[:, None] * copies + np.arange(copies)).ravel()


def _outside(size: NDArray[np.int64], area: str) -> NDArray[np.bool_]:
    if area == "all":
        return np.zeros(len(size), dtype=bool)
    return size != SIZES.index(area.removesuffix("_network"))


def _shares(classes: int) -> NDArray[np.float64]:
    """Class frequencies, unequal as in real data."""
    weights = 1.0 / np.arange(1, classes + 1)
    return weights / weights.sum()
