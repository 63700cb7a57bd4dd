"""The figures of an evaluation are pycocotools' own, and the matches give them again."""

from __future__ import annotations

import contextlib
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from bench.atomic import write_json
from bench.data.index import ImageIndex
from bench.data.scenes import SceneKnobs, read_scenes
from bench.detections import Detections
from bench.evaluation import detections_coco, evaluate, ground_truth_coco
from bench.matches import Matches, average_precision

STATS = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
)  # in the order of COCOeval.stats
AREAS = ("all", "small", "medium", "large", "small_network", "medium_network", "large_network")
CONDITIONS = ("truncated", "untruncated", "occluded", "unoccluded")


def index_of(
    boxes_of_images: list[list[tuple[int, float, float, float, float]]], *, classes: int = 2, side: int = 300
) -> ImageIndex:
    """Images of `side` pixels with boxes (label, x1, y1, x2, y2)."""
    flat = [box for boxes in boxes_of_images for box in boxes]
    boxes = np.array([box[1:] for box in flat], dtype=np.float64).reshape(-1, 4)
    images, count = len(boxes_of_images), len(flat)
    return ImageIndex(
        root=Path(),
        classes=tuple(f"class {k}" for k in range(classes)),
        category_ids=np.arange(1, classes + 1),
        files=tuple(f"{k}.jpg" for k in range(images)),
        image_ids=np.arange(1, images + 1),
        sizes=np.full((images, 2), side, dtype=np.int32),
        offsets=np.cumsum([0, *map(len, boxes_of_images)]),
        boxes=boxes,
        labels=np.array([box[0] for box in flat], dtype=np.int32),
        areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
        crowd=np.zeros(count, dtype=bool),
        difficult=np.zeros(count, dtype=bool),
        truncated=np.full(count, -1, dtype=np.int8),
        occluded=np.full(count, -1, dtype=np.int8),
    )


def detections_of(*found: tuple[int, int, float, float, float, float, float]) -> Detections:
    """From (image, label, score, x1, y1, x2, y2)."""
    table = np.array(found, dtype=np.float64).reshape(-1, 7)
    return Detections(
        image=table[:, 0].astype(np.int64),
        boxes=table[:, 3:].astype(np.float32),
        scores=table[:, 2].astype(np.float32),
        labels=table[:, 1].astype(np.int32),
    )


def random_boxes(rng: np.random.Generator, sizes: NDArray[np.int32], sides: tuple[float, float]) -> NDArray[np.float64]:
    """(K, 4) boxes inside images of `sizes` (K, 2), of all sizes on a logarithmic scale."""
    extent = np.minimum(np.exp(rng.uniform(math.log(sides[0]), math.log(sides[1]), (len(sizes), 2))), sizes * 0.9)
    corner = rng.uniform(0, 1, extent.shape) * (sizes - extent)
    return np.concatenate((corner, corner + extent), axis=1)


def random_index(rng: np.random.Generator, *, images: int = 12, classes: int = 5) -> ImageIndex:
    """Images without boxes, a class without ground truths, crowds, ids in no order."""
    counts = rng.integers(0, 6, images)
    sizes = rng.integers(200, 700, (images, 2)).astype(np.int32)
    boxes = random_boxes(rng, np.repeat(sizes, counts, axis=0), (8, 400))
    total = len(boxes)
    return replace(
        index_of([[(0, 0, 0, 1, 1)] * count for count in counts], classes=classes),
        category_ids=rng.permutation(90)[:classes] + 1,
        image_ids=rng.permutation(1000)[:images] + 1,
        sizes=sizes,
        boxes=boxes,
        labels=rng.integers(0, classes - 1, total).astype(np.int32),
        areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) * rng.uniform(0.4, 1, total),
        crowd=rng.random(total) < 0.15,
    )


def jittered(
    rng: np.random.Generator, index: ImageIndex, *, each: int = 3, wrong: int = 8, ties: bool = True
) -> Detections:
    """Ground truths moved a little, some under a wrong label, and `wrong` random boxes an image."""
    rows = np.repeat(np.arange(len(index.boxes)), each)
    sides = np.tile(index.boxes[rows, 2:] - index.boxes[rows, :2], 2)
    moved = index.boxes[rows] + rng.normal(0, 0.08, sides.shape) * sides
    stray = np.repeat(np.arange(len(index)), wrong)
    boxes = np.concatenate((moved, random_boxes(rng, index.sizes[stray], (8, 400))))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    labels = np.concatenate((index.labels[rows], rng.integers(0, len(index.classes), len(stray))))
    mistaken = rng.random(len(labels)) < 0.2
    labels[mistaken] = rng.integers(0, len(index.classes), mistaken.sum())
    scores = rng.random(len(labels))
    order = rng.permutation(len(labels))
    return Detections(
        image=np.concatenate((index.image_of_box[rows], stray))[order],
        boxes=boxes.astype(np.float32)[order],
        scores=(np.ceil(scores * 8) / 8 if ties else scores).astype(np.float32)[order],
        labels=labels.astype(np.int32)[order],
    )


def plain_pycocotools(truth: dict[str, Any], results: list[dict[str, Any]]) -> Any:
    """COCOeval as its own users run it (`loadRes` cannot take an empty list: then no annotations)."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        found = COCO()
        found.dataset = {"images": truth["images"], "categories": truth["categories"], "annotations": []}
        found.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(results) if results else found, "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def none_for_missing(values: NDArray[np.float64]) -> list[float | None]:
    return [None if value == -1 else float(value) for value in values]


def assert_as_plain(index: ImageIndex, detections: Detections, folder: Path) -> None:
    """Every figure equals, to the last bit, that of pycocotools on the saved files."""
    write_json(folder / "ground_truth.json", ground_truth_coco(index))
    write_json(folder / "detections.json", detections_coco(detections, index))
    truth = json.loads((folder / "ground_truth.json").read_text())
    results = json.loads((folder / "detections.json").read_text())
    plain = plain_pycocotools(truth, results)
    accuracy = evaluate(index, detections).accuracy
    ours, expected = [accuracy[name] for name in STATS], none_for_missing(plain.stats)
    assert [value is None for value in ours] == [value is None for value in expected]
    differences = [abs(a - b) for a, b in zip(ours, expected, strict=True) if a is not None and b is not None]
    print(f"largest difference to plain pycocotools {max(differences, default=0.0)} in {len(differences)} figures")
    assert ours == expected
    for column, category in enumerate(sorted(index.category_ids.tolist())):
        name = index.classes[index.category_ids.tolist().index(category)]
        precision, recall = plain.eval["precision"][:, :, column, 0, 2], plain.eval["recall"][:, column, 0, 2]
        expected = [values.mean() for values in (precision, precision[0], precision[5], recall)]
        per_class = accuracy["per_class"][name]
        figures = [per_class[figure] for figure in ("AP", "AP50", "AP75", "AR_100")]
        assert figures == none_for_missing(np.array(expected)), name


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_figure_is_that_of_plain_pycocotools(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    rng = np.random.default_rng(seed)
    index = random_index(rng)
    assert_as_plain(index, jittered(rng, index), tmp_path_factory.mktemp("files"))


def test_no_detections_at_all_score_as_in_plain_pycocotools(tmp_path: Path) -> None:
    index = random_index(np.random.default_rng(3))
    assert_as_plain(index, detections_of(), tmp_path)
    assert evaluate(index, detections_of()).accuracy["AP"] == 0


@pytest.mark.parametrize("seed", range(3))
def test_any_number_of_detections_an_image_scores_as_in_plain_pycocotools(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    index = random_index(rng, images=8)
    every = jittered(rng, index, each=4, wrong=300, ties=bool(seed % 2))
    order = np.argsort(every.image, kind="stable")
    counts = np.bincount(every.image, minlength=len(index))
    within = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    wanted = np.array([0, 1, 2, 99, 100, 101, 250, 300])
    kept = np.sort(order[within < np.repeat(wanted, counts)])
    detections = Detections(
        image=every.image[kept], boxes=every.boxes[kept], scores=every.scores[kept], labels=every.labels[kept]
    )
    assert np.bincount(detections.image, minlength=len(index)).tolist() == wanted.tolist()
    assert_as_plain(index, detections, tmp_path)


def test_the_hundred_best_of_an_image_and_class_count_as_in_plain_pycocotools(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    index = random_index(rng, images=3, classes=2)
    detections = jittered(rng, index, each=40, wrong=150)
    assert_as_plain(index, detections, tmp_path)
    matches = evaluate(index, detections).matches
    pairs = np.stack((matches.image, matches.label))
    assert np.unique(pairs, axis=1, return_counts=True)[1].max() == 100


def test_photographs_of_coco_score_as_in_plain_pycocotools(shared_data: Path, tmp_path: Path) -> None:
    source = json.loads((shared_data / "coco-mini" / "annotations.json").read_text())
    crowded = {note["image_id"] for note in source["annotations"] if note["iscrowd"]}
    images = sorted(source["images"], key=lambda image: image["id"] not in crowded)[:16]
    categories = [category["id"] for category in source["categories"]]
    notes = {image["id"]: [] for image in images}  # type: dict[int, list[dict[str, Any]]]
    for note in source["annotations"]:
        notes.get(note["image_id"], []).append(note)
    flat = [note for image in images for note in notes[image["id"]]]
    boxes = np.array([note["bbox"] for note in flat])
    boxes[:, 2:] += boxes[:, :2]
    empty = index_of([[(0, 0, 0, 1, 1)] * len(notes[image["id"]]) for image in images], classes=80)
    index = replace(
        empty,
        category_ids=np.array(categories),
        image_ids=np.array([image["id"] for image in images]),
        sizes=np.array([(image["width"], image["height"]) for image in images], dtype=np.int32),
        boxes=boxes,
        labels=np.array([categories.index(note["category_id"]) for note in flat], dtype=np.int32),
        areas=np.array([note["area"] for note in flat]),
        crowd=np.array([note["iscrowd"] for note in flat], dtype=bool),
    )
    assert index.crowd.sum() > 10
    assert_as_plain(index, jittered(np.random.default_rng(0), index), tmp_path)


@pytest.mark.parametrize("seed", range(3))
def test_network_sizes_are_those_of_the_boxes_at_the_network(seed: int) -> None:
    rng = np.random.default_rng(seed)
    index = random_index(rng)
    detections = jittered(rng, index)
    width, height = 400, 250
    truth, results = ground_truth_coco(index), detections_coco(detections, index)
    sizes = {image["id"]: (image["width"], image["height"]) for image in truth["images"]}
    for note in truth["annotations"]:
        w, h = sizes[note["image_id"]]
        note["area"] = note["bbox"][2] * note["bbox"][3] * (width / w * (height / h))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        found = coco.loadRes(results)
        for note in found.anns.values():
            w, h = sizes[note["image_id"]]
            note["area"] = note["area"] * (width / w * (height / h))
        plain = COCOeval(coco, found, "bbox")
        plain.evaluate()
        plain.accumulate()
        plain.summarize()
    accuracy = evaluate(index, detections, network_size=(width, height)).accuracy
    figures = [accuracy[f"AP_{size}_network"] for size in ("small", "medium", "large")]
    assert figures == none_for_missing(plain.stats[3:6])
    assert figures != [accuracy[f"AP_{size}"] for size in ("small", "medium", "large")]


@pytest.mark.parametrize("seed", range(3))
def test_difficult_is_ignored_and_not_a_crowd(seed: int) -> None:
    rng = np.random.default_rng(seed)
    index = random_index(rng, images=20)
    difficult = rng.random(len(index.boxes)) < 0.3
    detections = jittered(rng, index)
    # Plain pycocotools can be made to ignore, without a crowd's overlap, what is outside every area range.
    outside = replace(index, areas=np.where(difficult, 1e12, index.areas))
    plain = plain_pycocotools(ground_truth_coco(outside), detections_coco(detections, index))
    accuracy = evaluate(replace(index, difficult=difficult), detections).accuracy
    assert [accuracy[name] for name in STATS] == none_for_missing(plain.stats)
    assert accuracy["ground_truths"]["all"] == (~difficult & ~index.crowd).sum()
    crowds = evaluate(replace(index, crowd=index.crowd | difficult), detections).accuracy
    assert accuracy["AP"] != crowds["AP"]


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_conditions_are_plain_pycocotools_with_the_others_ignored(seed: int) -> None:
    """Plain pycocotools can be made to ignore, without a crowd's overlap, what is outside every area range."""
    rng = np.random.default_rng(seed)
    index = random_index(rng, images=20)
    count = len(index.boxes)
    truncated, occluded = rng.choice(np.array([-1, 0, 1], dtype=np.int8), (2, count))
    index = replace(index, difficult=rng.random(count) < 0.2, truncated=truncated, occluded=occluded)
    detections = jittered(rng, index)
    evaluation = evaluate(index, detections)
    differences = [0.0]
    having = (truncated == 1, truncated == 0, occluded == 1, occluded == 0)
    for name, flag in zip(CONDITIONS, having, strict=True):
        asked = flag & ~index.difficult
        truth = ground_truth_coco(replace(index, areas=np.where(asked, 1e5, 1e12)))
        plain = plain_pycocotools(truth, detections_coco(detections, index))
        figures = [evaluation.accuracy[f"{measure}_{name}"] for measure in ("AP", "AR")]
        expected = none_for_missing(plain.stats[[0, 8]])
        assert figures == expected, name
        differences += [abs(a - b) for a, b in zip(figures, expected, strict=True) if a is not None and b is not None]
        assert evaluation.accuracy["ground_truths"][name] == (asked & ~index.crowd).sum()
        if figures[0] is not None:
            again = np.nanmean(average_precision(evaluation.matches, area=name))
            assert again == pytest.approx(figures[0], abs=1e-12)
    print(f"largest difference to plain pycocotools: {max(differences)}")


def test_what_matches_nothing_is_wrong_in_every_condition() -> None:
    boxes = [(0, 10.0, 10.0, 60.0, 60.0), (0, 100.0, 100.0, 160.0, 160.0)]
    index = replace(index_of([boxes]), occluded=np.array([1, 0], dtype=np.int8))
    right = [(0, 0, 0.7, *box[1:]) for box in boxes]
    stray = (0, 0, 0.9, 200.0, 200.0, 260.0, 260.0)
    alone, with_stray = (evaluate(index, detections_of(*found)).accuracy for found in (right, [stray, *right]))
    assert alone["AP_occluded"] == alone["AP_unoccluded"] == pytest.approx(1, abs=1e-12)
    assert alone["AP_truncated"] is None
    # The stray comes first: precision 1/2 at every recall, while what is found of the other condition is ignored.
    assert with_stray["AP_occluded"] == with_stray["AP_unoccluded"] == pytest.approx(0.5, abs=1e-12)
    assert with_stray["AR_occluded"] == with_stray["AR_unoccluded"] == 1
    assert alone["ground_truths"]["occluded"] == alone["ground_truths"]["unoccluded"] == 1
    assert alone["ground_truths"]["truncated"] is None


def test_scenes_state_both_conditions(tmp_path: Path) -> None:
    index = read_scenes(SceneKnobs(images=8, occlusion=1.0, width=240, height=180), tmp_path, jobs=1).index
    whole = index.truncated == 0
    # All that is not cut by the border is found, and nothing else.
    found = Detections(
        image=index.image_of_box[whole],
        boxes=index.boxes[whole].astype(np.float32),
        scores=np.ones(whole.sum(), dtype=np.float32),
        labels=index.labels[whole],
    )
    accuracy = evaluate(index, found).accuracy
    counts = accuracy["ground_truths"]
    assert counts["truncated"] == (index.truncated == 1).sum() > 0
    assert counts["occluded"] == (index.occluded == 1).sum() > 0
    assert counts["truncated"] + counts["untruncated"] == counts["occluded"] + counts["unoccluded"] == counts["all"]
    assert (accuracy["AP_truncated"], accuracy["AR_truncated"]) == (0, 0)
    assert accuracy["AP_untruncated"] == pytest.approx(1, abs=1e-12)
    assert 0 < accuracy["AR_occluded"] < 1 and 0 < accuracy["AR_unoccluded"] < 1


def test_a_condition_that_no_object_has_is_none_with_the_number_0() -> None:
    index = replace(index_of([[(0, 10, 10, 60, 60)]]), truncated=np.zeros(1, dtype=np.int8))
    accuracy = evaluate(index, detections_of()).accuracy
    assert (accuracy["AP_truncated"], accuracy["ground_truths"]["truncated"]) == (None, 0)
    assert (accuracy["AP_untruncated"], accuracy["ground_truths"]["untruncated"]) == (0, 1)


def test_ap_of_a_curve_worked_by_hand() -> None:
    index = index_of([[(0, 10, 10, 60, 60), (0, 100, 100, 160, 160)]])
    detections = detections_of(
        (0, 0, 0.9, 10, 10, 60, 60),
        (0, 0, 0.8, 200, 200, 260, 260),
        (0, 0, 0.7, 100, 100, 160, 160),
    )
    evaluation = evaluate(index, detections)
    # Recall 0 to .50 (51 points) at precision 1, recall .51 to 1 (50 points) at 2/3.
    assert evaluation.accuracy["AP"] == pytest.approx((51 + 50 * 2 / 3) / 101, abs=1e-12)
    assert evaluation.accuracy["AR_1"] == 0.5
    assert evaluation.accuracy["per_class"]["class 1"]["AP"] is None
    assert evaluation.accuracy["images"] == 1
    assert evaluation.matches.truth[0].tolist() == [0, -1, 1]


def test_iou_is_without_plus_one() -> None:
    index = index_of([[(0, 0, 0, 10, 10)]])
    # IoU exactly .7: right at .50 to .70, five of the ten thresholds.
    accuracy = evaluate(index, detections_of((0, 0, 0.5, 0, 0, 10, 7))).accuracy
    assert accuracy["AP"] == pytest.approx(0.5)


def test_what_does_not_exist_is_none() -> None:
    index = index_of([[], [(0, 10, 10, 100, 100)]])
    nothing = detections_of()
    accuracy = evaluate(index, nothing).accuracy
    assert (accuracy["AP"], accuracy["AR_100"], accuracy["AP_medium"]) == (0, 0, 0)
    assert accuracy["AP_small"] is None
    assert accuracy["AP_large_network"] is None
    assert accuracy["ground_truths"] == dict(zip(AREAS, (1, 0, 1, 0, 0, 1, 0), strict=True)) | dict.fromkeys(CONDITIONS)
    assert all(accuracy[f"{measure}_{name}"] is None for measure in ("AP", "AR") for name in CONDITIONS)
    assert accuracy["per_class"]["class 1"] == dict.fromkeys(("AP", "AP50", "AP75", "AR_100")) | {"ground_truths": 0}
    json.dumps(accuracy, allow_nan=False)


@pytest.mark.parametrize(("crowd", "difficult"), [(True, False), (False, True)])
def test_only_ignored_ground_truths_leave_nothing_to_score(crowd: bool, difficult: bool) -> None:
    index = replace(index_of([[(0, 10, 10, 100, 100)]]), crowd=np.array([crowd]), difficult=np.array([difficult]))
    for detections in (detections_of(), detections_of((0, 0, 0.9, 10, 10, 100, 100))):
        evaluation = evaluate(index, detections)
        assert all(evaluation.accuracy[name] is None for name in STATS)
        assert np.isnan(average_precision(evaluation.matches)).all()


@pytest.mark.parametrize("boxes", [[], [[], []]])
def test_a_split_without_boxes_or_images_has_no_figures(
    boxes: list[list[tuple[int, float, float, float, float]]],
) -> None:
    evaluation = evaluate(index_of(boxes), detections_of())
    assert all(evaluation.accuracy[name] is None for name in STATS)
    assert evaluation.accuracy["images"] == len(boxes)


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(index_of([[(0, 10, 10, 100, 100)]]), detections_of())
    assert capsys.readouterr().out == ""


def test_detections_that_cannot_be_scored_are_refused() -> None:
    index = index_of([[(0, 10, 10, 100, 100)]])
    with pytest.raises(ValueError, match="not finite"):
        detections_of((0, 0, float("nan"), 0, 0, 1, 1))
    with pytest.raises(ValueError, match="unequal length"):
        replace(detections_of((0, 0, 0.5, 0, 0, 1, 1)), labels=np.zeros(2, dtype=np.int32))
    with pytest.raises(ValueError, match="image rows 1 to 1; there are 1"):
        evaluate(index, detections_of((1, 0, 0.5, 0, 0, 1, 1)))
    with pytest.raises(ValueError, match="labels -1 to -1; there are 2"):
        detections_coco(detections_of((0, -1, 0.5, 0, 0, 1, 1)), index)


def test_ground_truth_carries_what_the_source_knows() -> None:
    index = replace(
        index_of([[(1, 1.5, 2.25, 11, 12)], [(0, 0, 0, 5, 5)]]),
        image_ids=np.array([40, 7]),
        category_ids=np.array([90, 3]),
        difficult=np.array([True, False]),
        truncated=np.array([1, -1], dtype=np.int8),
    )
    coco = ground_truth_coco(index)
    assert coco["images"][0] == {"id": 40, "file_name": "0.jpg", "width": 300, "height": 300}
    assert [(category["id"], category["name"]) for category in coco["categories"]] == [
        (90, "class 0"),
        (3, "class 1"),
    ]
    first, second = coco["annotations"]
    assert first == {
        "id": 1,
        "image_id": 40,
        "category_id": 3,
        "bbox": [1.5, 2.25, 9.5, 9.75],
        "area": 9.5 * 9.75,
        "iscrowd": 0,
        "ignore": 1,
        "difficult": 1,
        "truncated": 1,
    }
    assert second["id"] == 2
    assert not {"truncated", "occluded"} & second.keys()


def test_saved_detections_keep_every_bit() -> None:
    rng = np.random.default_rng(0)
    index = random_index(rng)
    detections = jittered(rng, index, ties=False)
    results = json.loads(json.dumps(detections_coco(detections, index)))
    assert np.array_equal(np.array([entry["score"] for entry in results], dtype=np.float32), detections.scores)
    corners = np.array([entry["bbox"] for entry in results])
    corners[:, 2:] += corners[:, :2]
    assert np.array_equal(corners.astype(np.float32), detections.boxes)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), empty=st.booleans())
def test_matches_give_the_evaluators_ap_again(seed: int, empty: bool) -> None:
    rng = np.random.default_rng(seed)
    index = random_index(rng)
    detections = detections_of() if empty else jittered(rng, index)
    evaluation = evaluate(index, detections)
    plain = plain_pycocotools(ground_truth_coco(index), detections_coco(detections, index))
    by_id = np.argsort(np.argsort(index.category_ids))
    for place, area in enumerate(AREAS[:4]):
        expected = plain.eval["precision"][..., place, 2].mean(axis=1).T[by_id]
        ours = average_precision(evaluation.matches, area=area)
        np.testing.assert_allclose(ours, np.where(expected == -1, np.nan, expected), rtol=0, atol=1e-12)
    for area in AREAS:
        figure = evaluation.accuracy["AP" if area == "all" else f"AP_{area}"]
        ours = average_precision(evaluation.matches, area=area)
        if figure is None:
            assert np.isnan(ours).all()
        else:
            assert np.nanmean(ours) == pytest.approx(figure, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_weights_are_repetitions_of_images(seed: int) -> None:
    rng = np.random.default_rng(seed)
    index = random_index(rng, images=8)
    detections = jittered(rng, index, ties=False)
    drawn = np.sort(rng.integers(0, len(index), len(index)))
    repeated = replace(index.take(drawn), image_ids=np.arange(1, len(drawn) + 1))
    rows = [np.flatnonzero(detections.image == row) for row in drawn]
    again = Detections(
        image=np.repeat(np.arange(len(drawn)), [len(row) for row in rows]),
        boxes=detections.boxes[np.concatenate(rows)],
        scores=detections.scores[np.concatenate(rows)],
        labels=detections.labels[np.concatenate(rows)],
    )
    weights = np.bincount(drawn, minlength=len(index)).astype(np.float64)
    matches = evaluate(index, detections).matches
    both = np.stack((np.ones(len(index)), weights))
    for area in AREAS:
        replicate = average_precision(matches, weights, area=area)
        expected = average_precision(evaluate(repeated, again).matches, area=area)
        np.testing.assert_allclose(replicate, expected, rtol=0, atol=1e-12)
        together = average_precision(matches, both, area=area)
        np.testing.assert_array_equal(together[1], replicate)
        np.testing.assert_array_equal(together[0], average_precision(matches, area=area))


@pytest.mark.parametrize("empty", [False, True])
def test_matches_survive_the_file(tmp_path: Path, empty: bool) -> None:
    rng = np.random.default_rng(1)
    index = random_index(rng)
    matches = evaluate(index, detections_of() if empty else jittered(rng, index)).matches
    matches.save(tmp_path / "matches.npz")
    loaded = Matches.load(tmp_path / "matches.npz")
    for name, value in vars(matches).items():
        other = getattr(loaded, name)
        if isinstance(value, tuple):
            assert other == value
        else:
            assert (other.dtype, other.shape) == (value.dtype, value.shape), name
            np.testing.assert_array_equal(other, value)
    assert [path.name for path in tmp_path.iterdir()] == ["matches.npz"]


def test_matches_point_at_detections_and_ground_truths() -> None:
    rng = np.random.default_rng(2)
    index = random_index(rng)
    detections = jittered(rng, index)
    matches = evaluate(index, detections).matches
    np.testing.assert_array_equal(matches.image, detections.image[matches.detection])
    np.testing.assert_array_equal(matches.score, detections.scores[matches.detection])
    np.testing.assert_array_equal(matches.truth >= 0, matches.matched[AREAS.index("all")])
    thresholds, places = np.nonzero(matches.truth >= 0)
    truths = matches.truth[thresholds, places]
    assert len(truths) > 100
    np.testing.assert_array_equal(index.labels[truths], matches.label[places])
    np.testing.assert_array_equal(index.image_of_box[truths], matches.image[places])
    ordinary = ~index.crowd[truths]
    a, b = detections.boxes[matches.detection[places]].astype(float)[ordinary], index.boxes[truths][ordinary]
    sides = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None)
    shared = sides.prod(axis=1)
    union = np.prod(a[:, 2:] - a[:, :2], axis=1) + np.prod(b[:, 2:] - b[:, :2], axis=1) - shared
    assert (shared / union >= matches.thresholds[thresholds[ordinary]] - 1e-9).all()
