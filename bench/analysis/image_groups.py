"""Groups of near-duplicate validation images, and what a small number of them does to the bootstrap variance.

Near-duplicates are not independent: resampling them one by one treats four frames of one scene as four scenes. The
bootstrap therefore draws whole groups.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bench.analysis.run_records import Run
from bench.errors import UserError
from bench.storage.forms import SplitGroupsForm
from bench.storage.records import read_form
from bench.storage.run_folder import SPLIT


def validation_groups(run: Run, image_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) group of near-duplicates of each validation image, from 0 in the order of the groups' first images.

    image_ids: (N,) of `Matches`, whose images are in the order of split.json. In a run without groups (of an earlier
        version, or without split.json) every image is its own group.
    Raises UserError if split.json is damaged or lists another number of images.
    """
    path = run.folder / SPLIT
    groups = read_form(path, SplitGroupsForm).get("val", {}).get("groups") if path.is_file() else None
    if groups is None:
        return np.arange(len(image_ids))
    if len(groups) != len(image_ids):
        raise UserError(
            f"{path} lists {len(groups)} validation images, but the cells were evaluated on {len(image_ids)}; restore "
            "the file, or rerun in a new folder"
        )
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def independent_groups(present: NDArray[np.bool_], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """(C,) effective number of groups with ground truths of each class, at most the number of such groups.

    present: (N, C), which images have ground truths of which class. groups: (N,), from 0.

    With n_g images per group this is (sum n_g)^2 / sum n_g^2 (Kish 1965), rounded down: the number of groups if they
    are equally large, and less if a few large groups decide the metric.
    """
    sizes = _sizes(present, groups)
    return sizes.sum(axis=0) ** 2 // np.maximum((sizes**2).sum(axis=0), 1)


def variance_factor(present: NDArray[np.bool_], groups: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
    """By what the bootstrap variance of a mean over classes is multiplied to be unbiased; NaN if it is zero.

    present: (N, C), which images have ground truths of which class. groups: (N,), from 0. weights: (B, N) of the images
        in the resamples, the same for all images of a group.

    The model: the AP of a class is the mean of one value per image, and the values of different groups and classes are
    independent and have the same variance. A resample is then a weighted sum of these values, and its expected variance
    is the sum of the variances of the weights. This is too small for a class in few groups: the value of a class in a
    single group never changes. If all classes are in all G groups, the factor is about G / (G - 1).
    """
    sizes = _sizes(present[:, present.any(axis=0)], groups).astype(np.float64)
    drawn = weights[:, np.unique(groups, return_index=True)[1]]  # (B, G)
    seen = drawn @ sizes
    classes = (seen > 0).sum(axis=1, keepdims=True)  # in the mean over classes of this resample
    scale = np.divide(1.0, seen * classes, out=np.zeros_like(seen), where=seen > 0)[classes[:, 0] > 0]
    drawn = drawn[classes[:, 0] > 0]
    if len(drawn) < 2:
        return math.nan
    resampled = 0.0
    for label, of_class in enumerate(sizes.T):
        rows = np.flatnonzero(of_class)
        resampled += float((drawn[:, rows] * scale[:, [label]]).var(axis=0, ddof=1) @ of_class[rows] ** 2)
    unbiased = float(((sizes / sizes.sum(axis=0)) ** 2).sum()) / sizes.shape[1] ** 2
    return unbiased / resampled if resampled else math.nan


def _sizes(present: NDArray[np.bool_], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """(G, C) number of images with ground truths of each class in each group."""
    sizes = np.zeros((int(groups.max(initial=-1)) + 1, present.shape[1]), dtype=np.int64)
    np.add.at(sizes, groups, present)
    return sizes
