"""The split: own lists first, otherwise every class on both sides; saved and checked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from bench.data.split import TRAIN, VAL, evaluation_side, load, make_split, save, stratify
from bench.errors import UserError
from tests.data.builders import one_class_each, reading_of


def test_own_lists_are_used_unchanged() -> None:
    reading = reading_of([[0]] * 6, {"train": [0, 2], "val": [1], "test": [4, 5]})
    split = make_split(reading, val_fraction=0.9, seed=7)
    assert (split.train.tolist(), split.val.tolist()) == ([0, 2], [1])
    assert split.origin == "the data's own lists train and val"
    on_test = make_split(reading, eval_list="test")
    assert (on_test.train.tolist(), on_test.val.tolist()) == ([0, 2], [4, 5])
    assert on_test.fingerprint != split.fingerprint


def test_an_unknown_eval_list_names_the_existing_ones() -> None:
    with pytest.raises(UserError, match=r"no list 'minival'.*train, val"):
        make_split(reading_of([[0]] * 4, {"train": [0], "val": [1]}), eval_list="minival")
    with pytest.raises(UserError, match="no list is left to train on"):
        make_split(reading_of([[0]] * 4, {"test": [0]}), eval_list="test")
    with pytest.raises(UserError, match="no list is left to train on"):
        make_split(reading_of([[0]] * 4, {"train": [0], "val": [1]}), eval_list="train")


def test_given_detections_are_scored_on_the_validation_side_of_a_run() -> None:
    groups = np.array([0, 1, 2, 2, 3, 4])
    for lists in ({}, {"train": [0, 2], "val": [1, 3, 5]}, {"trainval": [0, 1, 2, 3], "test": [4, 5]}):
        reading = reading_of([[0]] * 6, lists)
        split = make_split(reading, groups=groups)
        rows, duplicates, origin = evaluation_side(reading, groups=groups)
        assert (rows.tolist(), duplicates.tolist()) == (split.val.tolist(), split.val_groups.tolist())
        assert origin == f"validation split ({split.origin})"
    with pytest.raises(UserError, match=r"no list 'vall'.*did you mean"):
        evaluation_side(reading_of([[0]] * 4, {"val": [0, 1]}), eval_list="vall", groups=np.arange(4))


def test_given_detections_need_no_list_to_train_on() -> None:
    reading, groups = reading_of([[0]] * 6, {"val": [1, 3, 5], "test": [0]}), np.array([0, 1, 2, 1, 3, 4])
    rows, duplicates, origin = evaluation_side(reading, groups=groups)
    assert (rows.tolist(), duplicates.tolist(), origin) == ([1, 3, 5], [0, 0, 1], "the data's own list val")
    assert evaluation_side(reading, eval_list="test", groups=groups)[0].tolist() == [0]
    trained = reading_of([[0]] * 6, {"train": [0, 2], "val": [1]})
    assert evaluation_side(trained, eval_list="train", groups=groups)[0].tolist() == [0, 2]
    everything = evaluation_side(trained, all_images=True, groups=groups)
    assert (everything[0].tolist(), everything[1].tolist()) == ([0, 1, 2, 3, 4, 5], [0, 1, 2, 1, 3, 4])
    with pytest.raises(UserError, match="No usable image to evaluate on"):
        evaluation_side(reading_of([[0]] * 2, {"val": []}), groups=groups[:2])


def test_a_test_list_is_never_split() -> None:
    split = make_split(reading_of([[0]] * 20, {"trainval": list(range(15)), "test": list(range(15, 20))}))
    assert sorted([*split.train, *split.val]) == list(range(15))
    split = make_split(reading_of([[0]] * 20, {"test": list(range(15, 20))}))
    assert sorted([*split.train, *split.val]) == list(range(15))
    on_test = make_split(
        reading_of([[0]] * 20, {"trainval": list(range(15)), "test": list(range(15, 20))}), eval_list="test"
    )
    assert on_test.train.tolist() == list(range(15))


def test_the_split_depends_only_on_the_seed() -> None:
    reading = one_class_each(60)
    first, again, other = (make_split(reading, seed=seed) for seed in (0, 0, 1))
    assert first.val.tolist() == again.val.tolist()
    assert first.fingerprint == again.fingerprint
    assert first.val.tolist() != other.val.tolist()
    assert first.origin == "stratified by class, seed 0, fraction 0.2"


def test_classes_are_split_in_proportion() -> None:
    rng = np.random.default_rng(3)
    presence = rng.random((2000, 10)) < np.geomspace(0.005, 0.6, 10)
    sides = stratify(presence, 0.2, 0)
    share = presence[sides == VAL].sum(axis=0) / presence.sum(axis=0)
    assert np.abs(np.sum(sides == VAL) - 400) <= 4
    assert np.all(np.abs(share - 0.2) <= 1.5 / presence.sum(axis=0) + 0.01)
    # What it is for: a random split of the same size is worse on the rarest classes.
    random_share = [presence[rng.permutation(2000)[:400], 0].sum() / presence[:, 0].sum() for _ in range(200)]
    assert abs(share[0] - 0.2) < np.std(random_share)


@given(labels=arrays(np.int64, st.integers(2, 60), elements=st.integers(0, 9)), seed=st.integers(0, 99))
def test_classes_with_two_images_are_on_both_sides(labels: NDArray[np.int64], seed: int) -> None:
    presence = np.eye(10, dtype=np.bool_)[labels]
    sides = stratify(presence, 0.1, seed)
    repeated = presence.sum(axis=0) >= 2
    for side in (TRAIN, VAL):
        assert np.array_equal(presence[sides == side].any(axis=0)[repeated], np.ones(repeated.sum(), bool))


@given(
    presence=arrays(np.bool_, st.tuples(st.integers(2, 25), st.integers(1, 6)), elements=st.booleans()),
    val_fraction=st.floats(0.05, 0.95),
    seed=st.integers(0, 9),
)
def test_no_single_move_would_add_a_missing_class(presence: NDArray[np.bool_], val_fraction: float, seed: int) -> None:
    sides = stratify(presence, val_fraction, seed)
    assert set(sides.tolist()) <= {TRAIN, VAL}

    def unserved(of: NDArray[np.int8]) -> int:
        on = np.stack([presence[of == side].any(axis=0) for side in (TRAIN, VAL)])
        return int(np.sum(~on.all(axis=0) & (presence.sum(axis=0) >= 2)))

    for row in range(len(presence)):
        moved = sides.copy()
        moved[row] = 1 - moved[row]
        served_by_move = unserved(sides) - unserved(moved)
        on = np.stack([presence[sides == side].any(axis=0) for side in (TRAIN, VAL)])
        on_after = np.stack([presence[moved == side].any(axis=0) for side in (TRAIN, VAL)])
        takes_none_away = not np.any(on.all(axis=0) & ~on_after.all(axis=0))
        assert served_by_move <= 0 or not takes_none_away


@given(
    presence=arrays(np.bool_, st.tuples(st.integers(2, 40), st.integers(1, 6)), elements=st.booleans()),
    groups=st.lists(st.integers(0, 14), min_size=40, max_size=40),
    val_fraction=st.floats(0.05, 0.95),
    seed=st.integers(0, 9),
)
def test_groups_stay_on_one_side(
    presence: NDArray[np.bool_], groups: list[int], val_fraction: float, seed: int
) -> None:
    grouped = np.array(groups[: len(presence)])
    sides = stratify(presence, val_fraction, seed, grouped)
    assert np.array_equal(sides, stratify(presence, val_fraction, seed, grouped * 7))  # their numbers say nothing
    for group in np.unique(grouped):
        assert len(set(sides[grouped == group].tolist())) == 1
    if 1 < len(np.unique(grouped)) < len(grouped):
        assert set(sides.tolist()) == {TRAIN, VAL}


@given(groups=st.lists(st.integers(0, 25), min_size=2, max_size=80), val_fraction=st.floats(0.05, 0.95))
def test_the_fraction_is_met_to_within_one_group(groups: list[int], val_fraction: float) -> None:
    grouped = np.array(groups)
    _, sizes = np.unique(grouped, return_counts=True)
    for presence in (np.zeros((len(groups), 1), np.bool_), np.ones((len(groups), 1), np.bool_)):
        sides = stratify(presence, val_fraction, 0, grouped)
        assert abs(np.sum(sides == VAL) - val_fraction * len(groups)) <= sizes.max()
        assert len(sizes) == 1 or set(sides.tolist()) == {TRAIN, VAL}


@given(
    presence=arrays(np.bool_, st.tuples(st.integers(2, 40), st.integers(1, 6)), elements=st.booleans()),
    val_fraction=st.floats(0.05, 0.95),
)
def test_groups_of_one_image_have_no_effect(presence: NDArray[np.bool_], val_fraction: float) -> None:
    alone = np.random.default_rng(0).permutation(len(presence))
    assert np.array_equal(stratify(presence, val_fraction, 3, alone), stratify(presence, val_fraction, 3))


def test_a_class_with_two_groups_is_on_both_sides() -> None:
    # Ten images of one class, but two recordings: five copies each
    presence = np.zeros((60, 2), np.bool_)
    presence[:10, 0] = presence[10:, 1] = True
    grouped = np.concatenate((np.repeat([100, 101], 5), np.arange(50)))
    sides = stratify(presence, 0.2, 0, grouped)
    assert sides[0] != sides[5]
    assert np.sum(sides[10:] == VAL) == 10


def test_a_group_too_large_for_a_side_is_split() -> None:
    # One fixed camera: nothing could be scored if all of its pictures had to be trained on.
    fixed_camera = np.zeros(20, dtype=np.int64)
    assert len(make_split(reading_of([[0]] * 20), groups=fixed_camera).val) == 4
    fixed_camera[:3] = 1
    split = make_split(reading_of([[0]] * 20), groups=fixed_camera)
    assert len({row in split.val for row in range(3)}) == 1  # the small group is whole all the same
    fixed_camera[:4] = 1
    assert make_split(reading_of([[0]] * 20), groups=fixed_camera).val.tolist() == [0, 1, 2, 3]


def test_own_lists_are_kept_despite_near_duplicates() -> None:
    lists = {"train": [0, 1], "val": [2, 3]}
    assert make_split(reading_of([[0]] * 6, lists), groups=np.zeros(6, dtype=np.int64)).val.tolist() == [2, 3]


def test_near_duplicates_in_validation_are_saved(tmp_path: Path) -> None:
    reading = reading_of([[0]] * 12, {"train": list(range(7)), "val": list(range(7, 12))})
    groups = np.array([9, 1, 2, 3, 4, 5, 6, 8, 7, 8, 9, 7])  # row 10 resembles a training image only
    split = make_split(reading, groups=groups)
    assert split.val_groups.tolist() == [0, 1, 0, 2, 1]
    assert split.fingerprint == make_split(reading).fingerprint
    assert make_split(reading).val_groups.tolist() == list(range(5))
    # A camera that never moves says nothing about independence: all images resemble each other.
    assert make_split(reading, groups=np.zeros(12, dtype=np.int64)).val_groups.tolist() == list(range(5))
    stratified = make_split(reading_of([[0]] * 40), groups=np.arange(40) // 2)
    assert stratified.val_groups.tolist() == (np.arange(8) // 2).tolist()

    path = tmp_path / "split.json"
    save(split, reading.index, path)
    content = json.loads(path.read_text())
    assert content["val"]["groups"] == load(path, reading.index).val_groups.tolist() == [0, 1, 0, 2, 1]
    del content["val"]["groups"]  # as an earlier version wrote it
    path.write_text(json.dumps(content))
    loaded = load(path, reading.index)
    assert loaded.val_groups.tolist() == list(range(5)) and loaded.fingerprint == split.fingerprint


def test_images_without_boxes_are_split_too() -> None:
    split = make_split(reading_of([[0]] * 50 + [[]] * 50))
    assert 8 <= np.sum(split.val >= 50) <= 12
    assert len(split.train) + len(split.val) == 100


@pytest.mark.parametrize("count", [2, 3, 4])
def test_small_sets_have_both_sides(count: int) -> None:
    assert len(make_split(reading_of([[]] * count)).val) == 1


def test_impossible_splits_are_user_errors() -> None:
    with pytest.raises(UserError, match=r"side of the split .* is empty; usable images: 1"):
        make_split(reading_of([[0]]))
    with pytest.raises(UserError, match="validation side"):
        make_split(reading_of([[0]] * 3, {"train": [0], "val": []}))
    for fraction in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(UserError, match="must be between 0 and 1"):
            make_split(one_class_each(9), val_fraction=fraction)


def test_saved_splits_round_trip(tmp_path: Path) -> None:
    reading = one_class_each(30)
    split = make_split(reading)
    path = tmp_path / "run" / "split.json"
    save(split, reading.index, path)
    assert [entry.name for entry in path.parent.iterdir()] == ["split.json"]
    # Images that came later, and another order, do not disturb it.
    more = one_class_each(33)
    shuffled = more.index.take(np.random.default_rng(0).permutation(33))
    loaded = load(path, shuffled)
    assert [shuffled.files[row] for row in loaded.val] == [reading.index.files[row] for row in split.val]
    assert (loaded.origin, loaded.fingerprint) == (split.origin, split.fingerprint)
    assert json.loads(path.read_text())["val"]["files"] == [reading.index.files[row] for row in split.val]


def test_changes_since_saving_are_named(tmp_path: Path) -> None:
    reading = one_class_each(30)
    index = reading.index
    split = make_split(reading)
    path = tmp_path / "split.json"
    save(split, index, path)
    trained = int(split.train[4])

    moved = index.boxes.copy()
    moved[trained, 0] += 1
    with pytest.raises(
        UserError, match=rf"1 images of train have another size or other boxes \({index.files[trained]}\)"
    ):
        load(path, replace(index, boxes=moved))
    grown = index.sizes.copy()
    grown[trained, 0] += 1
    with pytest.raises(UserError, match="1 images of train have another size"):
        load(path, replace(index, sizes=grown))
    with pytest.raises(UserError, match=rf"1 images of train are missing \({index.files[trained]}\)"):
        load(path, index.take(np.delete(np.arange(30), trained)))
    with pytest.raises(UserError, match="classes were class 0, class 1, class 2, now a, b, c"):
        load(path, replace(index, classes=("a", "b", "c")))
    content = json.loads(path.read_text())
    content["val"] = {key: values[1:] for key, values in content["val"].items()}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="the file itself was edited"):
        load(path, index)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"train": 1}'])
def test_an_invalid_split_file_is_a_user_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "split.json"
    path.write_text(text)
    with pytest.raises(UserError, match="cannot be read as a split"):
        load(path, one_class_each(3).index)
    with pytest.raises(UserError, match="cannot be read as a split"):
        load(tmp_path / "nothing.json", one_class_each(3).index)
