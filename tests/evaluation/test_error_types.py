"""Error types follow TIDE, and the gains from fixing errors equal hand computations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask

import bench.evaluation.matches
from bench.data.index import ImageIndex
from bench.evaluation import error_types as et
from bench.evaluation.coco import evaluate
from bench.evaluation.coco_format import detections_coco, ground_truth_coco
from bench.evaluation.detections import Detections, xywh
from bench.evaluation.error_types import (
    FALSE_NEGATIVES,
    FALSE_POSITIVES,
    KINDS,
    VERDICTS,
    ErrorTypes,
    error_types,
    fix_errors,
)
from bench.evaluation.matches import Matches
from tests.evaluation_oracles import detections_of, index_of, jittered, plain_pycocotools, random_index

EVERY_KIND = (*KINDS, FALSE_POSITIVES, FALSE_NEGATIVES)
SEEDS = st.integers(0, 10_000)


def decomposed(index: ImageIndex, detections: Detections) -> tuple[Matches, ErrorTypes]:
    matches = evaluate(index, detections).matches
    return matches, error_types(matches, xywh(detections.boxes[matches.detection]), xywh(index.boxes))


def gain(matches: Matches, types: ErrorTypes, kind: str, **chosen: NDArray[np.bool_]) -> float:
    after = et.ap50(fix_errors(matches, types, kind, **chosen))
    return float(np.nanmean(et.ap50_gain(et.ap50(matches), after)))


BOX = (10.0, 10.0, 110.0, 110.0)
BESIDE = (65.0, 10.0, 165.0, 110.0)  # IoU with BOX: 45 / 155
FAR = (200.0, 200.0, 290.0, 290.0)


def one_of_each(times: int) -> tuple[ImageIndex, Detections]:
    """`times` errors of each kind and twice as many true ones, of 5 ground truths of class 0 and 1 of class 1.

    By score: true .9, classification .8 (claims class 1), localisation .7, both .6, duplicate .5, background .4,
    and a true one at .05.
    """
    images = [[(0, *BOX)], [(0, *BOX)], [(0, *BOX)], [(1, *BOX)], [], [(0, *BOX)], [(0, *BOX)]]
    found = [
        (0, 0, 0.9, *BOX),
        (1, 1, 0.8, *BOX),
        (2, 0, 0.7, *BESIDE),
        (3, 0, 0.6, *BESIDE),
        (0, 0, 0.5, *BOX),
        (4, 0, 0.4, *BOX),
        (6, 0, 0.05, *BOX),
    ]
    shifted = [(image + 7 * copy, *rest) for copy in range(times) for image, *rest in found]
    return index_of(images * times), detections_of(*shifted)  # type: ignore[arg-type]


@pytest.mark.parametrize("times", [1, 3])
def test_counts_and_gains_of_each_kind_equal_hand_computation(times: int) -> None:
    index, detections = one_of_each(times)
    matches, types = decomposed(index, detections)
    # Of class 1 the one ground truth is hit by an error of `both`, which mends nothing: it is missed too.
    assert types.counts() == {kind: times for kind in KINDS} | {"missed": 2 * times}
    assert np.count_nonzero(types.verdict == et.TRUE) == 2 * times

    # Of class 0: recall .2 at precision 1, .4 at 2/6. Class 1 has AP 0 whatever is mended: the mean halves.
    before = 21 + 20 * 2 / 6
    assert np.nanmean(et.ap50(matches)) == pytest.approx(before / 101 / 2, abs=1e-12)
    after = {
        "classification": 41 + 20 * 3 / 7,
        "localisation": 41 + 20 * 3 / 6,
        "both": 21 + 20 * 2 / 5,
        "duplicate": 21 + 20 * 2 / 5,
        "background": 21 + 20 * 2 / 5,
        "missed": 26 + 25 * 2 / 6,
        FALSE_POSITIVES: 41,
        FALSE_NEGATIVES: 51 + 50 * 2 / 6,
    }
    assert {kind: gain(matches, types, kind) * 101 * 2 for kind in EVERY_KIND} == pytest.approx(
        {kind: points - before for kind, points in after.items()}, abs=1e-9
    )


def test_only_the_best_error_recovers_a_ground_truth() -> None:
    index = index_of([[(0, *BOX)], [(0, *BOX)]])
    detections = detections_of(
        (0, 0, 0.6, *BESIDE),
        (0, 1, 0.9, *BOX),  # the best: it alone gives the ground truth back
        (0, 1, 0.7, *BOX),
        (1, 0, 0.8, *BOX),
        (1, 1, 0.95, *BOX),  # about a ground truth that was found: it can only go
    )
    matches, types = decomposed(index, detections)
    by_row = dict(zip(matches.detection.tolist(), types.mends.tolist(), strict=True))
    assert by_row == {0: False, 1: True, 2: False, 3: False, 4: False}
    assert types.counts() == dict.fromkeys(KINDS, 0) | {"classification": 3, "localisation": 1}
    # Both found: AP 1, of the one class that has ground truths.
    assert gain(matches, types, "classification") == pytest.approx(1 - 51 / 101, abs=1e-12)
    assert gain(matches, types, "localisation") == 0


def test_ignored_objects_are_neither_errors_nor_ground_truths() -> None:
    index = replace(index_of([[(0, *BOX), (1, *FAR)]]), difficult=np.array([True, False]))
    detections = detections_of((0, 0, 0.9, *BOX), (0, 1, 0.8, *BOX), (0, 0, 0.7, *BESIDE))
    matches, types = decomposed(index, detections)
    verdicts = {row: VERDICTS[verdict] for row, verdict in zip(matches.detection, types.verdict, strict=True)}
    assert verdicts == {0: "ignored", 1: "background", 2: "background"}
    assert types.missed.tolist() == [False, True]


@settings(max_examples=12, deadline=None)
@given(SEEDS)
def test_ap50_before_fixing_is_the_published_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    index = random_index(rng)
    index = replace(index, difficult=rng.random(len(index.boxes)) < 0.1)
    evaluation = evaluate(index, jittered(rng, index))
    published = evaluation.accuracy["AP50"]
    counted = et.ap50(evaluation.matches)
    if published is None:
        assert np.isnan(counted).all()
    else:
        assert np.nanmean(counted) == pytest.approx(published, abs=1e-12)


@settings(max_examples=12, deadline=None)
@given(SEEDS, st.sampled_from([7, 250_000]))
def test_verdicts_follow_the_definition(seed: int, pairs_at_once: int) -> None:
    """One by one, as in section 2.2 of TIDE; the chunk size does not matter."""
    rng = np.random.default_rng(seed)
    index = random_index(rng)
    detections = jittered(rng, index)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(et, "PAIRS_AT_ONCE", pairs_at_once)
        matches, types = decomposed(index, detections)
    true = types.verdict == et.TRUE
    used = set(types.truth[true].tolist())
    assert len(used) == true.sum()
    boxes, truth_boxes = xywh(detections.boxes[matches.detection]), xywh(index.boxes)
    about = set(used)
    for row in np.flatnonzero(types.verdict >= et.CLASSIFICATION):
        beside = np.flatnonzero((index.image_of_box == matches.image[row]) & ~index.crowd)
        iou = et.box_iou(boxes[row], truth_boxes[beside])
        own = index.labels[beside] == matches.label[row]
        taken = own & np.isin(beside, list(used))
        if 0.1 <= iou[own].max(initial=0) <= 0.5:
            expected, candidates = "localisation", own
        elif iou[~own].max(initial=0) >= 0.5:
            expected, candidates = "classification", ~own
        elif iou[taken].max(initial=0) >= 0.5:
            expected, candidates = "duplicate", taken
        elif iou.max(initial=0) <= 0.1:
            expected, candidates = "background", own & False
        else:
            expected, candidates = "both", np.ones_like(own)
        assert VERDICTS[types.verdict[row]] == expected
        nearest = iou[candidates].max(initial=-1)
        assert (types.truth[row] == -1) == (nearest == -1)
        if nearest >= 0:
            assert types.truth[row] in beside[candidates & (iou == nearest)]
        if expected in ("localisation", "classification"):
            about.add(int(types.truth[row]))
    assert set(np.flatnonzero(types.missed).tolist()) == set(np.flatnonzero(~index.crowd).tolist()) - about


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_fixing_errors_in_two_parts_equals_fixing_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    index = random_index(rng)
    matches, types = decomposed(index, jittered(rng, index))
    some_detections = rng.random(len(matches.label)) < 0.5
    some_truths = rng.random(len(index.boxes)) < 0.5
    before = et.ap50(matches)
    for kind in EVERY_KIND:
        whole = fix_errors(matches, types, kind)
        nothing = fix_errors(matches, types, kind, detections=some_detections & False, truths=some_truths & False)
        np.testing.assert_allclose(et.ap50(nothing), before, atol=1e-12)
        first = fix_errors(matches, types, kind, detections=some_detections, truths=some_truths)
        rest = fix_errors(matches, types, kind, detections=~some_detections, truths=~some_truths)
        changed = (len(matches.label) - len(whole.label), *_positives(whole, matches))
        added = [(len(matches.label) - len(part.label), *_positives(part, matches)) for part in (first, rest)]
        assert np.array_equal(changed, np.sum(added, axis=0))


def _positives(after: Matches, before: Matches) -> tuple[int, int]:
    """The number of true positives gained, and of ground truths that no longer count."""
    return int(after.matched.sum() - et.at_foreground(before).matched.sum()), int(
        after.truth_ignored.sum() - et.at_foreground(before).truth_ignored.sum()
    )


@settings(max_examples=12, deadline=None)
@given(SEEDS)
def test_ap_without_false_positives_is_recall(seed: int) -> None:
    rng = np.random.default_rng(seed)
    index = random_index(rng)
    matches, types = decomposed(index, jittered(rng, index))
    after = et.ap50(fix_errors(matches, types, FALSE_POSITIVES))
    true = types.verdict == et.TRUE
    for label in range(len(index.classes)):
        total = np.count_nonzero((index.labels == label) & ~index.crowd)
        found = np.count_nonzero(true & (matches.label == label))
        points = 0 if not found else 100 * found // total + 1
        assert np.isnan(after[label]) if not total else after[label] == pytest.approx(points / 101, abs=1e-12)


def test_empty_detections_and_empty_ground_truths() -> None:
    for index, detections in (
        (index_of([[(0, *BOX)], []]), detections_of()),
        (index_of([[], []]), detections_of((0, 1, 0.5, *BOX))),
        (index_of([[], []]), detections_of()),
    ):
        matches, types = decomposed(index, detections)
        assert types.counts() == dict.fromkeys(KINDS, 0) | {
            "missed": len(index.boxes),
            "background": len(detections.image),
        }
        for kind in EVERY_KIND:
            after = et.ap50_gain(et.ap50(matches), et.ap50(fix_errors(matches, types, kind)))
            assert np.nan_to_num(after).tolist() == [0.0, 0.0]


def test_error_types_round_trip_through_a_file(tmp_path: Path) -> None:
    _, types = decomposed(*one_of_each(2))
    types.save(tmp_path / "error_types.npz")
    again = ErrorTypes.load(tmp_path / "error_types.npz")
    for name in ("verdict", "truth", "mends", "missed"):
        np.testing.assert_array_equal(getattr(again, name), getattr(types, name), strict=True)


@given(SEEDS)
def test_iou_is_bit_identical_to_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes, others = (rng.uniform(0, 60, (count, 4)).round(rng.integers(0, 3)) for count in (7, 5))
    expected = np.asarray(mask.iou(boxes, others, [0] * len(others)))
    sized = (boxes[:, 2:].prod(axis=1)[:, None] + others[:, 2:].prod(axis=1)) > 0
    np.testing.assert_array_equal(et.box_iou(boxes[:, None], others)[sized], expected[sized])


TIDE_NAMES = {"Cls": "classification", "Loc": "localisation", "Both": "both", "Dupe": "duplicate"} | {
    "Bkg": "background", "Miss": "missed", "FalsePos": FALSE_POSITIVES, "FalseNeg": FALSE_NEGATIVES
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TideResult:
    """AP50 in percent, and the number and cost of each kind of error, according to tidecv."""

    ap50: float
    counts: dict[str, int]
    costs: dict[str, float]


@pytest.fixture
def tide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TideResult]:
    """The package tidecv, which scores `max_dets` detections of an image."""
    tidecv = pytest.importorskip("tidecv")
    monkeypatch.setenv("TIDE_PATH", str(tmp_path))  # else it makes a folder in the user's home

    def analyse(index: ImageIndex, detections: Detections, *, max_dets: int = 100) -> TideResult:
        truths, found = tidecv.Data("truths", max_dets), tidecv.Data("found")  # it reads the limit of the truths
        for image in range(len(index)):
            truths.add_image(image, str(image))
        for image, label, box in zip(index.image_of_box, index.labels, xywh(index.boxes), strict=True):
            truths.add_ground_truth(int(image), int(label), box.tolist())
        columns: Any = (detections.image, detections.labels, detections.scores, xywh(detections.boxes))
        for image, label, score, box in zip(*columns, strict=True):
            found.add_detection(int(image), int(label), float(score), box.tolist())
        tide = tidecv.TIDE()
        run = tide.evaluate(truths, found, mode=tidecv.TIDE.BOX)
        errors = tide.get_all_errors()
        costs = {name: value for part in ("main", "special") for name, value in errors[part]["found"].items()}
        return TideResult(
            ap50=run.ap,
            counts={TIDE_NAMES[error.short_name]: count for error, count in run.count_errors().items()},
            costs={TIDE_NAMES[name]: value for name, value in costs.items()},
        )

    return analyse


def best_of_each_image(detections: Detections, most: int) -> Detections:
    """The `most` detections of the highest score in each image, over all classes."""
    order = np.lexsort((-detections.scores, detections.image))
    images, starts = np.unique(detections.image[order], return_index=True)
    rank = np.arange(len(order)) - starts[np.searchsorted(images, detections.image[order])]
    return detections.take(order[rank < most])


def assert_equal_to_tide(matches: Matches, types: ErrorTypes, theirs: TideResult) -> None:
    assert theirs.ap50 == pytest.approx(100 * np.nanmean(et.ap50(matches)), abs=1e-9)
    assert types.counts() == theirs.counts
    ours = {kind: max(0.0, 100 * gain(matches, types, kind)) for kind in KINDS}
    ours |= {kind: 100 * gain(matches, types, kind) for kind in (FALSE_POSITIVES, FALSE_NEGATIVES)}
    assert ours == pytest.approx(theirs.costs, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_tidecv_agrees_apart_from_its_limit_per_image(
    seed: int, tide: Callable[..., TideResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """tidecv keeps the 100 best detections of an image over all classes; COCO and this suite 100 of each class."""
    # Its points on the recall axis are quotients, COCO's are sums: .29 is not the same number in both.
    monkeypatch.setattr(bench.evaluation.matches, "RECALLS", np.arange(101) / 100)
    rng = np.random.default_rng(seed)
    index = random_index(rng, images=15, classes=4)
    # Crowds apart: tidecv also searches what it ignores for errors. And the last class is always empty.
    index = replace(index, crowd=np.zeros_like(index.crowd), classes=index.classes[:3])
    index = replace(index, category_ids=index.category_ids[:3])
    detections = jittered(rng, index, each=2, wrong=120, ties=False)
    assert np.bincount(detections.image).min() > 100
    assert np.bincount(3 * detections.image + detections.labels).max() <= 100

    everything = decomposed(index, detections)
    assert_equal_to_tide(*everything, tide(index, detections, max_dets=len(detections.image)))
    limited = tide(index, detections)
    assert_equal_to_tide(*decomposed(index, best_of_each_image(detections, 100)), limited)
    assert sum(limited.counts.values()) < sum(everything[1].counts().values())
    assert limited.ap50 != pytest.approx(100 * np.nanmean(et.ap50(everything[0])), abs=1e-3)


def test_a_detection_beyond_tidecvs_limit_counts_as_in_coco(tide: Callable[..., TideResult]) -> None:
    """One class with many false detections hides no other class: pycocotools' AP50 is 1, that of tidecv is .5."""
    index = index_of([[(0, *BOX), (1, *FAR)]])
    strays = [(0, 1, 0.9 - 0.001 * place, 120.0, 10.0, 150.0, 40.0) for place in range(99)]
    detections = detections_of((0, 1, 0.95, *FAR), *strays, (0, 0, 0.1, *BOX))
    matches, types = decomposed(index, detections)
    coco = plain_pycocotools(ground_truth_coco(index), detections_coco(detections, index))
    assert np.nanmean(et.ap50(matches)) == pytest.approx(coco.stats[1], abs=1e-12) == 1
    assert types.counts() == dict.fromkeys(KINDS, 0) | {"background": 99}

    limited = tide(index, detections)
    assert limited.ap50 == pytest.approx(50)
    assert limited.counts == dict.fromkeys(KINDS, 0) | {"background": 99, "missed": 1}
    assert tide(index, detections, max_dets=101).ap50 == pytest.approx(100)


def test_tidecv_treats_absent_classes_differently(tide: Callable[..., TideResult]) -> None:
    right = (0, 0, 0.9, *BOX)
    without_truths = index_of([[(0, *BOX)]]), detections_of(right, (0, 1, 0.8, *FAR))
    assert np.nanmean(et.ap50(decomposed(*without_truths)[0])) == pytest.approx(1)
    assert tide(*without_truths).ap50 == pytest.approx(50)
    without_detections = index_of([[(0, *BOX), (1, *FAR)]]), detections_of(right)
    assert gain(*decomposed(*without_detections), "missed") == 0
    assert tide(*without_detections).costs["missed"] == pytest.approx(50)
