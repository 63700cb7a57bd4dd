"""IoUs are those on the real grid, and fitted shapes match boxes that the preset cannot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchvision.ops import box_iou

from bench.detector import prior_fitting
from bench.detector.boxes import to_corners
from bench.detector.prior_fitting import (
    Grid,
    best_overlaps,
    boxes_of_levels,
    fit_shapes,
    flat_shapes,
    recall,
    recall_by_shape,
)
from bench.detector.priors import prior_boxes
from tests import tiny

SPEC = tiny.specification().detector


def boxes_of(width: float, height: float, count: int, seed: int = 0) -> NDArray[np.float64]:
    """(count, 4) boxes of about this size, in pixels at 300, at random places."""
    generator = np.random.default_rng(seed)
    size = np.array([width, height]) / 300 * generator.uniform(0.85, 1.15, (count, 2))
    low = generator.random((count, 2)) * (1 - size)
    return np.concatenate((low, low + size), axis=1)


def test_the_best_overlap_of_a_shape_is_the_maximum_over_its_priors() -> None:
    generator = np.random.default_rng(0)
    low = generator.random((200, 2)) * 0.9
    boxes = np.concatenate((low, np.minimum(low + generator.uniform(0.01, 0.6, (200, 2)), 1)), axis=1)
    every = box_iou(torch.from_numpy(boxes), to_corners(prior_boxes(SPEC)).double()).numpy()
    shape_of_prior = []
    start = 0
    for side, level in zip(SPEC.feature_maps, SPEC.priors, strict=True):
        shape_of_prior += [start + shape for _ in range(side * side) for shape in range(len(level))]
        start += len(level)
    expected = np.stack([every[:, np.array(shape_of_prior) == shape].max(axis=1) for shape in range(start)], axis=1)
    np.testing.assert_allclose(best_overlaps(boxes, flat_shapes(SPEC.priors), Grid.of(SPEC)), expected, atol=1e-6)


@pytest.mark.parametrize(("width", "height"), [(20, 100), (100, 20), (12, 12), (150, 30)])
def test_fitting_serves_shapes_far_from_the_preset(width: float, height: float) -> None:
    train, held_out = boxes_of(width, height, 400), boxes_of(width, height, 400, seed=1)
    fitted = replace(SPEC, priors=fit_shapes(train, SPEC))
    before, after = recall(held_out, SPEC)["mean_best_iou"], recall(held_out, fitted)["mean_best_iou"]
    assert after >= before + 0.06
    assert [len(level) for level in fitted.priors] == [4, 6, 6, 6, 4, 4]


@pytest.mark.parametrize("seed", range(3))
def test_fitting_raises_the_overlap_of_a_mixture(seed: int) -> None:
    boxes = np.concatenate([boxes_of(w, h, 60, seed) for w, h in ((60, 60), (30, 45), (200, 140), (15, 25))])
    fitted = replace(SPEC, priors=fit_shapes(boxes, SPEC))
    assert recall(boxes, fitted)["mean_best_iou"] > recall(boxes, SPEC)["mean_best_iou"]
    assert fit_shapes(boxes, SPEC) == fitted.priors


def test_without_boxes_shapes_do_not_change() -> None:
    assert fit_shapes(np.zeros((0, 4)), SPEC) == SPEC.priors
    assert recall(np.zeros((0, 4)), SPEC) == {"boxes": 0}


@pytest.mark.parametrize("seed", range(25))
def test_fitting_never_lowers_the_overlap_of_any_mixture(seed: int) -> None:
    """Mixtures of one to eight kinds of boxes of every ratio and size."""
    generator = np.random.default_rng(seed)
    count = int(generator.integers(1, 300))
    kinds = np.exp(generator.uniform(np.log(0.005), np.log(0.99), (int(generator.integers(1, 9)), 2)))
    spread = np.exp(generator.normal(0, generator.choice([0.02, 0.2, 0.6]), (count, 2)))
    size = np.clip(kinds[generator.integers(0, len(kinds), count)] * spread, 0.002, 1)
    low = generator.random((count, 2)) * (1 - size)
    boxes = np.concatenate((low, low + size), axis=1)
    fitted = replace(SPEC, priors=fit_shapes(boxes, SPEC))
    assert recall(boxes, fitted)["mean_best_iou"] >= recall(boxes, SPEC)["mean_best_iou"]
    assert [len(level) for level in fitted.priors] == [4, 6, 6, 6, 4, 4]


def test_every_box_has_one_level_of_its_own_and_levels_above_the_finest_serve_larger_ones() -> None:
    sizes = np.array([[20, 20], [34, 34], [45, 45], [100, 100], [203, 41], [290, 290]]) / 300
    served = np.array(boxes_of_levels(sizes, SPEC.priors)).T.tolist()
    none = [False] * 6
    assert served[0] == [True, *none[1:]]
    assert served[1] == [False, True, *none[2:]]  # not of the finest, although only 1.1 times its largest
    assert served[2] == [False, True, *none[2:]]
    assert served[3] == [False, True, True, *none[3:]]  # up to 1.6 times the largest of level 1
    assert served[4] == [False, False, True, *none[3:]]  # as long as 101 pixels are large
    assert served[5] == [*none[:4], True, True]


def test_a_slender_box_gets_no_shape_on_a_map_whose_cells_do_not_see_it() -> None:
    fitted = fit_shapes(boxes_of(203, 41, 500), SPEC)
    assert fitted[:2] == SPEC.priors[:2] and fitted[2] != SPEC.priors[2]
    assert all(120 < 300 * width < 260 and 25 < 300 * height < 60 for width, height in fitted[2])


def test_levels_with_few_boxes_keep_their_shapes() -> None:
    fitted = fit_shapes(np.concatenate((boxes_of(14, 22, 400), boxes_of(200, 130, 59))), SPEC)
    assert fitted[0] != SPEC.priors[0] and fitted[1:] == SPEC.priors[1:]


def test_boxes_that_the_preset_matches_stay_matched() -> None:
    held_out = boxes_of(60, 60, 500, seed=1)
    fitted = replace(SPEC, priors=fit_shapes(boxes_of(60, 60, 500), SPEC))
    assert recall(held_out, SPEC)["matched"] == recall(held_out, fitted)["matched"] == 1.0


def test_recall_by_level_counts_only_the_priors_of_that_level() -> None:
    result = recall(boxes_of(21, 21, 300), SPEC)
    assert result["matched_by_level"][0] == result["matched"] > 0.9
    assert result["matched_by_level"][2:] == result["only_by_level"][2:] == [0.0] * 4


def some_boxes(seed: int, count: int) -> NDArray[np.float64]:
    """(count, 4) boxes of every size and ratio, at random places."""
    generator = np.random.default_rng(seed)
    size = np.exp(generator.uniform(np.log(0.02), 0, (count, 2)))
    low = generator.random((count, 2)) * (1 - size)
    return np.concatenate((low, low + size), axis=1)


@given(seed=st.integers(0, 2**31), count=st.integers(1, 80))
def test_shares_of_levels_and_shapes_add_up(seed: int, count: int) -> None:
    boxes = some_boxes(seed, count)
    result, shapes = recall(boxes, SPEC), recall_by_shape(boxes, SPEC)
    assert [len(level) for level in shapes] == [4, 6, 6, 6, 4, 4]
    for level, shares in enumerate(shapes):
        assert sum(share["best"] for share in shares) == pytest.approx(result["best_by_level"][level])
        assert all(share["only"] <= share["best"] for share in shares)
        assert sum(share["only"] for share in shares) <= result["only_by_level"][level] + 1e-12
        assert result["only_by_level"][level] <= result["best_by_level"][level] <= result["matched_by_level"][level]
    assert sum(result["best_by_level"]) == pytest.approx(result["matched"])
    sizes = result["by_size_network"].values()
    assert sum(size["boxes"] for size in sizes) == count
    weighted = sum(size["boxes"] * size["matched"] for size in sizes if size["boxes"])
    assert weighted / count == pytest.approx(result["matched"])
    assert all((size["matched"] is None) == (size["boxes"] == 0) for size in sizes)


def test_only_shares_are_lost_without_the_level_or_shape() -> None:
    """Compare to the recall of a detector without that level or shape: its priors are too small to match."""
    boxes = some_boxes(3, 250)
    result, shares = recall(boxes, SPEC), recall_by_shape(boxes, SPEC)
    speck = (1e-4, 1e-4)
    for level, shapes_of_level in enumerate(SPEC.priors):
        rest = [*SPEC.priors]
        rest[level] = (speck,) * len(shapes_of_level)
        lost = result["matched"] - recall(boxes, replace(SPEC, priors=tuple(rest)))["matched"]
        assert result["only_by_level"][level] == pytest.approx(lost, abs=1e-12)
        for index in range(len(shapes_of_level)):
            rest[level] = (*shapes_of_level[:index], speck, *shapes_of_level[index + 1 :])
            lost = result["matched"] - recall(boxes, replace(SPEC, priors=tuple(rest)))["matched"]
            assert shares[level][index]["only"] == pytest.approx(lost, abs=1e-12)
    assert max(result["only_by_level"]) > 0.05  # otherwise the comparison would test nothing


def test_recall_does_not_depend_on_the_chunk_size(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = some_boxes(4, 50)
    whole = recall(boxes, SPEC), recall_by_shape(boxes, SPEC)
    monkeypatch.setattr(prior_fitting, "CHUNK", 7)
    assert (recall(boxes, SPEC), recall_by_shape(boxes, SPEC)) == whole


def test_sizes_use_cocos_limits_at_the_network_resolution() -> None:
    sides = np.array([31, 33, 95, 97]) / 300
    boxes = np.concatenate((np.zeros((4, 2)), np.stack((sides, sides), axis=1)), axis=1)
    counts = {name: size["boxes"] for name, size in recall(boxes, SPEC)["by_size_network"].items()}
    assert counts == {"small": 1, "medium": 2, "large": 1}
