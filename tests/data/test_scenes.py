"""The built-in scenes are reproducible, annotated by the stated rules, and follow the knobs."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from bench.data.readers.reading import Reading
from bench.data.scenes import reader
from bench.data.scenes.camera import Photograph, annotate, photograph
from bench.data.scenes.knobs import PRESETS, RANGES, SceneKnobs
from bench.data.scenes.packages import PACKAGES
from bench.data.scenes.reader import _is_validation, read_scenes
from bench.detector.prior_fitting import fit_shapes, recall
from bench.errors import UserError
from tests import tiny
from tests.conftest import REPOSITORY
from tests.traps import executed, set_traps

SMALL_PICTURES = {"width": 240, "height": 180}


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Reading:
    """Default scenes, but fewer and smaller in pixels (sizes at 300x300 are the same)."""
    knobs = SceneKnobs(images=72, **SMALL_PICTURES)
    return read_scenes(knobs, tmp_path_factory.mktemp("cache"), jobs=1)


@pytest.fixture(scope="module")
def photographs() -> list[Photograph]:
    """A few pictures with their instance masks, with much occlusion."""
    return [photograph(SceneKnobs(occlusion=1.0, **SMALL_PICTURES), number) for number in range(12)]


def at_network(boxes: NDArray[np.float64], knobs: SceneKnobs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Size (square root of the area) and width / height of the boxes after the warp to 300x300."""
    width = (boxes[:, 2] - boxes[:, 0]) * 300 / knobs.width
    height = (boxes[:, 3] - boxes[:, 1]) * 300 / knobs.height
    return np.sqrt(width * height), width / height


def unhidden_boxes(knobs: SceneKnobs, pictures: int) -> NDArray[np.float64]:
    """(M, 4) boxes of objects that are neither truncated nor occluded, to within 2% for rounding."""
    found = []
    for number in range(pictures):
        photo = photograph(knobs, number)
        visible = np.bincount(photo.instances.ravel(), minlength=len(photo.labels) + 1)[1:]
        whole = visible[photo.complete * 0.4 <= visible] / photo.complete[photo.complete * 0.4 <= visible]
        found.append(photo.objects.boxes[(whole > 0.98) & (photo.objects.truncated == 0)])
    return np.concatenate(found)


# Knobs


@given(
    images=st.integers(4, 100_000),
    small=st.floats(0, 0.85),
    shapes=st.floats(0, 1),
    seed=st.integers(0, 2**31 - 1),
)
def test_knobs_round_trip_through_text(images: int, small: float, shapes: float, seed: int) -> None:
    knobs = SceneKnobs(images=images, small=small, shapes=shapes, seed=seed)
    given_ones = {name: value for name, value in asdict(knobs).items() if name != "size"}
    assert SceneKnobs.parse(", ".join(f"{name} = {value!r}" for name, value in given_ones.items())) == knobs


@settings(max_examples=60)
@given(text=st.text(max_size=40) | st.from_regex(r"(images|size|small|seed)=[0-9a-z.+-]{0,12}", fullmatch=True))
def test_any_text_gives_knobs_or_a_clear_error(text: str) -> None:
    try:
        knobs = SceneKnobs.parse(text)
    except UserError as error:
        assert str(error).startswith("scenes: ")
    else:
        for name, (lowest, highest) in RANGES.items():
            assert lowest <= getattr(knobs, name) <= highest or (name == "size" and knobs.size == 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image=40", "did you mean images?"),
        ("occlusions=0.2", "did you mean occlusion?"),
        ("zzzz=1", "the knobs are images, classes"),
        ("small=1.5", "not between 0 and 0.85"),
        ("small=nan", "not between"),
        ("images=" + "9" * 400, "not between 4 and"),
        ("size=3", "not 0 or between 12 and 120"),
        ("images=4.5", "'4.5' is not a whole number"),
        ("shapes", "shapes has no value"),
        ("seed=1,seed=2", "given twice"),
        ("size=60,small=0.2", "remove one of them"),
        ("width=1900,height=300", "too elongated"),
        ("tinny", "did you mean tiny?"),
        ("tiny,easy", "tiny and easy are both presets"),
        ("tiny,small=0.2", "remove one of them"),
    ],
)
def test_bad_knobs_raise_an_error_with_the_remedy(text: str, said: str) -> None:
    with pytest.raises(UserError, match=r"^scenes: ") as caught:
        SceneKnobs.parse(text)
    assert said in str(caught.value)


def test_an_empty_text_gives_the_defaults() -> None:
    assert SceneKnobs.parse("") == SceneKnobs()


def test_a_preset_sets_knobs_that_others_override() -> None:
    assert SceneKnobs.parse("tall") == SceneKnobs(shapes=1.0)
    assert SceneKnobs.parse("images=40, easy, shapes=0.2") == SceneKnobs(
        images=40, shapes=0.2, size=60.0, occlusion=0.0
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_each_preset_is_valid_and_differs_from_the_defaults(preset: str) -> None:
    assert SceneKnobs.parse(preset) != SceneKnobs()


# Drawing and caching


def test_images_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    knobs = SceneKnobs(images=16, **SMALL_PICTURES)
    one, two = (read_scenes(knobs, tmp_path / str(jobs), jobs=jobs) for jobs in (1, 2))
    assert one.index.fingerprint() == two.index.fingerprint()
    for name in one.index.files:
        assert (one.index.root / name).read_bytes() == (two.index.root / name).read_bytes()


def test_an_image_depends_on_the_seed_but_not_on_the_set_size() -> None:
    few, many = (photograph(SceneKnobs(images=images, **SMALL_PICTURES), 3) for images in (4, 400))
    other = photograph(SceneKnobs(seed=1, **SMALL_PICTURES), 3)
    assert np.array_equal(few.picture, many.picture)
    assert np.array_equal(few.objects.boxes, many.objects.boxes)
    assert not np.array_equal(few.picture, other.picture)


def test_a_set_is_redrawn_only_if_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def counted(knobs: SceneKnobs, number: int) -> Photograph:
        drawn.append(number)
        return photograph(knobs, number)

    monkeypatch.setattr(reader, "photograph", counted)
    knobs = SceneKnobs(images=4, **SMALL_PICTURES)
    first = read_scenes(knobs, tmp_path, jobs=1)
    second = read_scenes(knobs, tmp_path, jobs=1)
    assert drawn == [0, 1, 2, 3]
    assert first.index.fingerprint() == second.index.fingerprint()
    (first.index.root / first.index.files[2]).unlink()
    (first.index.root / "notes.txt").touch()
    third = read_scenes(knobs, tmp_path, jobs=1)
    assert len(drawn) == 8
    assert (third.index.root / first.index.files[2]).is_file()
    assert (third.index.root / "notes.txt").is_file()  # a user's
    assert [path.name for path in tmp_path.iterdir()] == [first.index.root.name]
    annotations = first.index.root / reader.ANNOTATIONS
    annotations.write_bytes(annotations.read_bytes()[:1000])
    fourth = read_scenes(knobs, tmp_path, jobs=1)
    assert len(drawn) == 12
    assert fourth.index.fingerprint() == first.index.fingerprint()


def test_interrupted_drawing_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(knobs: SceneKnobs, number: int) -> Photograph:
        if number == 2:
            raise KeyboardInterrupt
        return photograph(knobs, number)

    monkeypatch.setattr(reader, "photograph", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_scenes(SceneKnobs(images=4, **SMALL_PICTURES), tmp_path, jobs=1)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_cache_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="--cache"):
        read_scenes(SceneKnobs(images=4), tmp_path / "file", jobs=1)


# The set as a whole


def test_files_match_the_index(reading: Reading) -> None:
    index = reading.index
    assert reading.problems == []
    for name, size in list(zip(index.files, index.sizes.tolist(), strict=True))[:8]:
        with Image.open(index.root / name) as picture:
            assert (list(picture.size), picture.mode, picture.format) == (size, "RGB", "JPEG")
    sizes = index.sizes[index.image_of_box].astype(float)
    assert (index.boxes[:, :2] >= 0).all()
    assert (index.boxes[:, 2:] <= sizes).all()
    assert (index.boxes[:, 2:] > index.boxes[:, :2]).all()
    assert set(np.unique(index.truncated)) == set(np.unique(index.occluded)) == {0, 1}


def test_a_quarter_is_for_validation_and_both_sides_have_all_classes(reading: Reading) -> None:
    train, val = reading.lists["train"], reading.lists["val"]
    assert np.array_equal(np.sort(np.concatenate([train, val])), np.arange(72))
    assert len(val) == 18
    for rows in (train, val):
        assert set(reading.index.take(rows).labels.tolist()) == set(range(12))
    assert reading.index.classes == tuple(package.name for package in PACKAGES[:12])


def test_images_are_neither_empty_nor_crowded(reading: Reading) -> None:
    counts = np.diff(reading.index.offsets)
    assert counts.min() >= 1
    assert counts.max() <= 30
    assert 7 <= np.median(counts) <= 18


def test_mean_colour_does_not_reveal_the_class(reading: Reading) -> None:
    """Nearest class mean and five nearest neighbours in RGB stay below 40% on the validation crops."""
    index = reading.index
    colours = np.empty((len(index.boxes), 3))
    for row, name in enumerate(index.files):
        with Image.open(index.root / name) as opened:
            picture = np.asarray(opened)
        for box in range(index.offsets[row], index.offsets[row + 1]):
            x0, y0, x1, y1 = index.boxes[box].astype(int)
            colours[box] = picture[y0:y1, x0:x1].mean(axis=(0, 1))
    of_val = np.isin(index.image_of_box, reading.lists["val"])
    known, labels = colours[~of_val], index.labels[~of_val]
    asked, truth = colours[of_val], index.labels[of_val]
    means = np.stack([known[labels == label].mean(axis=0) for label in range(12)])
    by_mean = np.argmin(np.square(asked[:, None] - means).sum(axis=2), axis=1)
    nearest = np.argsort(np.square(asked[:, None] - known).sum(axis=2), axis=1)[:, :5]
    by_neighbours = np.array([np.bincount(row, minlength=12).argmax() for row in labels[nearest]])
    assert (by_mean == truth).mean() < 0.4
    assert (by_neighbours == truth).mean() < 0.4


# Annotation


def test_annotation_of_a_drawing_with_known_answers() -> None:
    instances = np.zeros((40, 60), dtype=np.uint8)
    instances[5:15, 10:20] = 1  # complete: 100 of 100
    instances[5:15, 30:34] = 2  # 40 of 100: just annotated
    instances[25:35, 0:9] = 3  # 90 of 100, at the left border
    instances[25:29, 50:59] = 4  # 36 of 100: not annotated; object 5 is not to be seen at all
    labels = np.array([3, 1, 4, 1, 5], dtype=np.int32)
    objects = annotate(instances, labels, np.full(5, 100.0))
    assert objects.boxes.tolist() == [[10, 5, 20, 15], [30, 5, 34, 15], [0, 25, 9, 35]]
    assert objects.labels.tolist() == [3, 1, 4]
    assert objects.occluded.tolist() == [0, 1, 0]
    assert objects.truncated.tolist() == [0, 0, 1]


def test_an_image_without_objects_has_an_empty_annotation() -> None:
    nothing = annotate(np.zeros((8, 8), dtype=np.uint8), np.zeros(0, dtype=np.int32), np.zeros(0))
    assert nothing.boxes.shape == (0, 4)
    assert nothing.labels.shape == nothing.truncated.shape == (0,)


def test_the_visibility_rule_holds_on_the_instance_masks(photographs: list[Photograph]) -> None:
    left_out = 0
    for photo in photographs:
        expected = []
        for number, (label, complete) in enumerate(zip(photo.labels, photo.complete, strict=True), start=1):
            ys, xs = np.nonzero(photo.instances == number)
            if len(ys) >= 0.4 * complete and len(ys):
                box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
                height, width = photo.instances.shape
                cut = 0 in (xs.min(), ys.min()) or xs.max() == width - 1 or ys.max() == height - 1
                expected.append((*box, label, len(ys) < 0.85 * complete, cut))
            else:
                left_out += 1
        objects = photo.objects
        columns = (
            *objects.boxes.T.tolist(),
            objects.labels.tolist(),
            objects.occluded.tolist(),
            objects.truncated.tolist(),
        )
        assert list(zip(*columns, strict=True)) == expected
    assert left_out > 10  # the rule was put to the test


def test_complete_size_equals_the_visible_size_of_unoccluded_objects() -> None:
    """The camera's magnification is computed, not measured, so check it on fully visible objects."""
    shares = []
    for number in range(6):
        photo = photograph(SceneKnobs(occlusion=0.0, small=0.0), number)
        for k, complete in enumerate(photo.complete, start=1):
            mask = photo.instances == k
            if mask.any() and not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()):
                shares.append(mask.sum() / complete)
    assert len(shares) > 15
    assert 0.99 < np.median(shares) < 1.01
    assert max(shares) < 1.05


# What the knobs do


def test_square_objects_of_one_size() -> None:
    """The experiment with a known answer: every fully visible object is a square of 60 pixels at 300."""
    knobs = SceneKnobs(shapes=0.0, size=60.0)
    sizes, ratios = at_network(unhidden_boxes(knobs, 6), knobs)
    assert len(sizes) > 20
    assert 52 < sizes.min() < sizes.max() < 69
    assert 0.85 < ratios.min() < ratios.max() < 1.18


def test_aspect_ratios_stay_within_one_to_five() -> None:
    spreads = []
    for shapes in (0.5, 1.0):
        knobs = SceneKnobs(shapes=shapes, occlusion=0.0, **SMALL_PICTURES)
        _, ratios = at_network(unhidden_boxes(knobs, 12), knobs)
        # A pixel of rounding and the camera's roll widen the narrowest boxes by up to a fifth.
        assert 0.2 / 1.2 < ratios.min() < ratios.max() < 5 * 1.2
        spreads.append(float(np.log(ratios).std()))
    assert spreads[1] > 1.25 * spreads[0] > 0.6


def test_objects_in_full_view_measure_10_to_250_pixels_at_the_network() -> None:
    for small in (0.0, 0.85):
        knobs = SceneKnobs(small=small, occlusion=0.0)
        sizes, _ = at_network(unhidden_boxes(knobs, 6), knobs)
        assert 10 <= sizes.min() < sizes.max() <= 250


@pytest.mark.parametrize("small", [0.0, 0.35, 0.85])
def test_the_share_of_small_objects_follows_its_knob(small: float, reading: Reading) -> None:
    if small == 0.35:
        boxes, knobs = reading.index.boxes, SceneKnobs(**SMALL_PICTURES)
    else:
        knobs = SceneKnobs(small=small, **SMALL_PICTURES)
        boxes = np.concatenate([photograph(knobs, number).objects.boxes for number in range(16)])
    sizes, _ = at_network(boxes, knobs)
    assert abs((sizes < 32).mean() - small) < 0.1


def test_occlusion_follows_its_knob(photographs: list[Photograph]) -> None:
    def hidden(photos: list[Photograph]) -> float:
        inside = [photo.objects.occluded[photo.objects.truncated == 0] for photo in photos]
        return float(np.concatenate(inside).mean())

    square = SceneKnobs(occlusion=0.0, shapes=0.0, size=60.0, **SMALL_PICTURES)
    for knobs in (SceneKnobs(occlusion=0.0, **SMALL_PICTURES), square):
        assert hidden([photograph(knobs, number) for number in range(10)]) < 0.03
    assert hidden(photographs) > 0.25


def validation_recall(knobs: SceneKnobs) -> tuple[float, float]:
    """Share of the validation boxes that a prior of COCO's preset matches, and one fitted to the training boxes."""
    numbers = [*range(knobs.images)]
    drawn = [photograph(knobs, number).objects.boxes for number in numbers]
    extent = np.tile([knobs.width, knobs.height], 2)
    held_out = _is_validation(knobs.images)
    train, val = (
        np.concatenate([drawn[number] for number in numbers if held_out[number] == side]) / extent
        for side in (False, True)
    )
    spec = tiny.specification().detector
    fitted = replace(spec, priors=fit_shapes(train, spec))
    return recall(val, spec)["matched"], recall(val, fitted)["matched"]


def test_priors_fitted_to_extreme_shapes_match_many_more_validation_boxes() -> None:
    before, after = validation_recall(SceneKnobs(images=80, shapes=1.0, **SMALL_PICTURES))
    assert after >= before + 0.1


def test_fitted_priors_gain_nothing_on_squares_of_60_pixels() -> None:
    before, after = validation_recall(SceneKnobs(images=24, shapes=0.0, size=60.0, **SMALL_PICTURES))
    assert before > 0.98
    assert abs(after - before) <= 0.01


def test_the_numbers_of_classes_and_images_follow_their_knobs(tmp_path: Path) -> None:
    for images, classes in ((8, 2), (12, 18)):
        made = read_scenes(SceneKnobs(images=images, classes=classes, **SMALL_PICTURES), tmp_path, jobs=1)
        assert len(made.index) == images
        assert made.index.classes == tuple(package.name for package in PACKAGES[:classes])
        assert set(made.index.labels.tolist()) <= set(range(classes))
        assert len(set(made.index.labels.tolist())) > min(classes, 9) - 1


DRAWS_ELSEWHERE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from bench.data.scenes.knobs import SceneKnobs
from bench.data.scenes.reader import read_scenes
if __name__ == "__main__":
    read_scenes(SceneKnobs(images=16, width=240, height=180), Path(sys.argv[2]), jobs=2)
"""


def test_drawing_processes_execute_no_file_of_the_current_folder(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    script = tmp_path / "script.py"
    script.write_text(DRAWS_ELSEWHERE)
    current = set_traps(tmp_path_factory.mktemp("current"))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    command = [sys.executable, str(script), str(REPOSITORY), str(tmp_path / "cache")]
    subprocess.run(command, cwd=current, env=environment, check=True)
    assert executed(current) == []
    assert len(list(tmp_path.glob("cache/*/*.jpg"))) == 16
