"""The figures of an evaluation equal pycocotools', and the matches reproduce them."""

from __future__ import annotations

import contextlib
import io
import json
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

from bench.data.index import ImageIndex
from bench.data.scenes.knobs import SceneKnobs
from bench.data.scenes.reader import read_scenes
from bench.evaluation.coco import evaluate
from bench.evaluation.coco_format import detections_coco, ground_truth_coco
from bench.evaluation.detections import Detections
from bench.evaluation.matches import average_precision
from bench.storage.atomic import write_json
from tests.evaluation_oracles import detections_of, index_of, jittered, plain_pycocotools, random_index

STATS = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
)  # in the order of COCOeval.stats
AREAS = ("all", "small", "medium", "large", "small_network", "medium_network", "large_network")
CONDITIONS = ("truncated", "untruncated", "occluded", "unoccluded")


def none_for_missing(values: NDArray[np.float64]) -> list[float | None]:
    return [None if value == -1 else float(value) for value in values]


def assert_as_plain(index: ImageIndex, detections: Detections, folder: Path) -> None:
    """All figures are bit-identical to those of pycocotools on the saved files."""
    write_json(folder / "ground_truth.json", ground_truth_coco(index))
    write_json(folder / "detections.json", detections_coco(detections, index))
    truth = json.loads((folder / "ground_truth.json").read_text())
    results = json.loads((folder / "detections.json").read_text())
    plain = plain_pycocotools(truth, results)
    accuracy = evaluate(index, detections).accuracy
    ours, expected = [accuracy[name] for name in STATS], none_for_missing(plain.stats)
    assert [value is None for value in ours] == [value is None for value in expected]
    differences = [abs(a - b) for a, b in zip(ours, expected, strict=True) if a is not None and b is not None]
    print(f"largest difference from plain pycocotools {max(differences, default=0.0)} in {len(differences)} figures")
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
def test_all_figures_equal_plain_pycocotools(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    rng = np.random.default_rng(seed)
    index = random_index(rng)
    assert_as_plain(index, jittered(rng, index), tmp_path_factory.mktemp("files"))


def test_an_empty_detector_scores_as_in_plain_pycocotools(tmp_path: Path) -> None:
    index = random_index(np.random.default_rng(3))
    assert_as_plain(index, detections_of(), tmp_path)
    assert evaluate(index, detections_of()).accuracy["AP"] == 0


@pytest.mark.parametrize("seed", range(3))
def test_any_number_of_detections_scores_as_in_plain_pycocotools(seed: int, tmp_path: Path) -> None:
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


def test_only_the_best_hundred_per_image_and_class_count(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    index = random_index(rng, images=3, classes=2)
    detections = jittered(rng, index, each=40, wrong=150)
    assert_as_plain(index, detections, tmp_path)
    matches = evaluate(index, detections).matches
    pairs = np.stack((matches.image, matches.label))
    assert np.unique(pairs, axis=1, return_counts=True)[1].max() == 100


def test_real_coco_data_score_as_in_plain_pycocotools(shared_data: Path, tmp_path: Path) -> None:
    source = json.loads((shared_data / "coco-mini" / "annotations.json").read_text())
    crowded = {note["image_id"] for note in source["annotations"] if note["iscrowd"]}
    images = sorted(source["images"], key=lambda image: image["id"] not in crowded)[:16]
    categories = [category["id"] for category in source["categories"]]
    notes: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in images}
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
def test_network_sizes_use_boxes_at_the_network(seed: int) -> None:
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
def test_difficult_objects_are_ignored_but_are_not_crowds(seed: int) -> None:
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
def test_conditions_equal_plain_pycocotools_with_other_objects_ignored(seed: int) -> None:
    """Plain pycocotools ignores objects outside all area ranges without a crowd's overlap."""
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
    print(f"largest difference from plain pycocotools: {max(differences)}")


def test_unmatched_detections_are_wrong_in_every_condition() -> None:
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


def test_scenes_annotate_both_conditions(tmp_path: Path) -> None:
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


def test_a_condition_without_objects_has_no_ap_and_count_0() -> None:
    index = replace(index_of([[(0, 10, 10, 60, 60)]]), truncated=np.zeros(1, dtype=np.int8))
    accuracy = evaluate(index, detections_of()).accuracy
    assert (accuracy["AP_truncated"], accuracy["ground_truths"]["truncated"]) == (None, 0)
    assert (accuracy["AP_untruncated"], accuracy["ground_truths"]["untruncated"]) == (0, 1)


def test_ap_of_a_curve_computed_by_hand() -> None:
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


def test_missing_values_are_none() -> None:
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
def test_ignored_ground_truths_alone_give_no_figures(crowd: bool, difficult: bool) -> None:
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


def test_invalid_detections_are_rejected() -> None:
    index = index_of([[(0, 10, 10, 100, 100)]])
    with pytest.raises(ValueError, match="not finite"):
        detections_of((0, 0, float("nan"), 0, 0, 1, 1))
    with pytest.raises(ValueError, match="different lengths"):
        replace(detections_of((0, 0, 0.5, 0, 0, 1, 1)), labels=np.zeros(2, dtype=np.int32))
    with pytest.raises(ValueError, match="image rows 1 to 1, but there are only 1"):
        evaluate(index, detections_of((1, 0, 0.5, 0, 0, 1, 1)))
    with pytest.raises(ValueError, match="labels -1 to -1, but there are only 2"):
        detections_coco(detections_of((0, -1, 0.5, 0, 0, 1, 1)), index)


def test_ground_truth_json_has_all_fields_of_the_source() -> None:
    index = replace(
        index_of([[(1, 1.5, 2.25, 11, 12)], [(0, 0, 0, 5, 5)]]),
        image_ids=np.array([40, 7]),
        category_ids=np.array([90, 3]),
        difficult=np.array([True, False]),
        truncated=np.array([1, -1], dtype=np.int8),
    )
    coco = ground_truth_coco(index)
    assert coco["images"][0] == {"id": 40, "file_name": "0.png", "width": 300, "height": 300}
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


def test_saved_detections_are_bit_identical() -> None:
    rng = np.random.default_rng(0)
    index = random_index(rng)
    detections = jittered(rng, index, ties=False)
    results = json.loads(json.dumps(detections_coco(detections, index)))
    assert np.array_equal(np.array([entry["score"] for entry in results], dtype=np.float32), detections.scores)
    corners = np.array([entry["bbox"] for entry in results])
    corners[:, 2:] += corners[:, :2]
    assert np.array_equal(corners.astype(np.float32), detections.boxes)
