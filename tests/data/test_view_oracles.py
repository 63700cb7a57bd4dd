"""The augmentation compared to torchvision's transforms, closed forms and slow literal rules.

Each test prints the largest difference (`pytest -s`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import kstest
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as theirs

from bench.data.augment import View, boxes_in_view, draw_view, generator_of
from bench.data.batches import Sample, TrainingBatches
from bench.data.warp import warp
from bench.spec import AugmentSpec
from tests import tiny
from tests.index_builders import LabelledBox, index_of

SPEC = AugmentSpec()
STILL = replace(SPEC, expand_probability=0.0, mirror_probability=0.0)
SIZE = 300
MOVES = ("warp", "zoom-out", "crop", "mirror", "all")


@dataclass(frozen=True)
class Move:
    """A view in whole pixels, as torchvision's transforms take it.

    padding: left, top, right, bottom. crop: left, top, width, height on the padded canvas.
    """

    padding: tuple[int, int, int, int]
    crop: tuple[int, int, int, int]
    mirrored: bool

    def view(self, width: int, height: int) -> View:
        left, top = self.crop[0] - self.padding[0], self.crop[1] - self.padding[1]
        corners = np.array([left, top, left + self.crop[2], top + self.crop[3]], dtype=np.float64)
        return View(corners / np.array([width, height, width, height]), self.mirrored)

    def torchvisions(self, what: Any) -> Any:
        """The same by torchvision's pad, crop, flip and resize, for an image or boxes."""
        padded = theirs.pad(what, list(self.padding))
        left, top, width, height = self.crop
        cut = theirs.crop(padded, top, left, height, width)
        turned = theirs.horizontal_flip(cut) if self.mirrored else cut
        return theirs.resize(turned, [SIZE, SIZE], antialias=True)


def drawn(generator: np.random.Generator, move: str, width: int, height: int) -> Move:
    padding = (0, 0, 0, 0)
    if move in ("zoom-out", "all"):
        left, right = generator.integers(0, int(1.5 * width), 2)
        top, bottom = generator.integers(0, int(1.5 * height), 2)
        padding = (int(left), int(top), int(right), int(bottom))
    canvas = (width + padding[0] + padding[2], height + padding[1] + padding[3])
    crop = (0, 0, *canvas)
    if move in ("crop", "all"):
        wide, high = (int(generator.integers(-(-3 * side // 10), side + 1)) for side in canvas)
        crop = (
            int(generator.integers(canvas[0] - wide + 1)),
            int(generator.integers(canvas[1] - high + 1)),
            wide,
            high,
        )
    return Move(padding, crop, mirrored=move == "mirror" or (move == "all" and bool(generator.random() < 0.5)))


@pytest.mark.parametrize("move", MOVES)
def test_content_is_within_a_pixel_of_torchvisions_boxes(move: str) -> None:
    """Each move alone, and all, on a white rectangle on black: the lines of half intensity and the box."""
    generator = np.random.default_rng(MOVES.index(move))
    to_content, to_theirs, seen_cases = 0.0, 0.0, 0
    for _ in range(150):
        width, height = (int(side) for side in generator.integers(40, 500, 2))
        low = generator.integers(0, (width // 2, height // 2))
        high = low + generator.integers((width // 6, height // 6), (width // 2, height // 2))
        picture = np.zeros((height, width, 3), dtype=np.uint8)
        picture[low[1] : high[1], low[0] : high[0]] = 255
        moved = drawn(generator, move, width, height)
        view = moved.view(width, height)
        seen, stays = boxes_in_view(np.array([[*low, *high]]) / np.array([width, height, width, height]), view)
        if not stays[0]:
            assert move in ("crop", "all")
            continue
        corners = torch.tensor([[*low, *high]], dtype=torch.float64)
        boxes = tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=(height, width))
        expected = moved.torchvisions(boxes).numpy()[0]
        rows, columns = np.nonzero(warp(picture, view, SIZE)[0][..., 0] >= 128)
        found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        to_content = max(to_content, float(np.abs(found - expected).max()))
        to_theirs = max(to_theirs, float(np.abs(seen[0] * SIZE - expected).max()))
        seen_cases += 1
    print(f"{move}: {seen_cases} boxes, content off by {to_content:.2f} pixels, boxes by {to_theirs:.1e} pixels")
    assert seen_cases > 50
    assert to_content < 1.01
    assert to_theirs < 1e-3  # torchvision resizes boxes in single precision


@pytest.mark.parametrize("move", ["warp", "crop", "mirror"])
def test_pixels_equal_torchvisions_transforms(move: str) -> None:
    """Noise reveals any shift. At a crop's border only our filter reads pixels outside the crop."""
    generator = np.random.default_rng(10 + MOVES.index(move))
    largest = 0
    for _ in range(12):
        width, height = (int(side) for side in generator.integers(60, 500, 2))
        picture = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        moved = drawn(generator, move, width, height)
        ours, inside = warp(picture, moved.view(width, height), SIZE)
        expected = np.asarray(moved.torchvisions(Image.fromarray(picture)))
        reach = 2 + int(np.ceil(max(SIZE / moved.crop[2], SIZE / moved.crop[3])))
        within = slice(reach, SIZE - reach)
        assert inside == (0, 0, SIZE, SIZE)
        difference = np.abs(ours[within, within].astype(int) - expected[within, within].astype(int))
        largest = max(largest, int(difference.max()))
    print(f"{move}: largest difference from torchvision {largest} of 255")
    assert largest <= 1


def test_boxes_stay_by_the_centre_rule() -> None:
    """On a grid of sixteenths, where centres lie on borders: exactly the boxes with their centre in the view."""
    generator = np.random.default_rng(0)
    differing, boxes_seen = 0, 0
    for _ in range(300):
        low = generator.integers(0, 15, (20, 2))
        boxes = np.concatenate((low, np.minimum(low + generator.integers(1, 12, (20, 2)), 16)), axis=1) / 16
        corner = generator.integers(-16, 12, 2)
        rectangle = np.concatenate((corner, corner + generator.integers(4, 40, 2))) / 16
        expected = []
        for left, top, right, bottom in boxes.tolist():
            x, y = (left + right) / 2, (top + bottom) / 2
            expected.append(rectangle[0] <= x < rectangle[2] and rectangle[1] <= y < rectangle[3])
        for mirrored in (False, True):
            seen, stays = boxes_in_view(boxes, View(rectangle, mirrored))
            differing += int((stays != np.array(expected)).sum())
            boxes_seen += len(stays)
            assert len(seen) == stays.sum()
            assert ((seen >= 0) & (seen <= 1)).all()
    print(f"{differing} of {boxes_seen} boxes differ from the centre rule")
    assert differing == 0


class FixedChoice(np.random.Generator):
    """A generator with a fixed choice among the successful crops (0: the whole image); all else is random."""

    def __init__(self, seed: int, choice: int) -> None:
        super().__init__(np.random.PCG64(seed))
        self.fixed, self.successful = choice, -1

    def integers(self, low: Any, *arguments: Any, **options: Any) -> Any:
        self.successful = int(low) - 1
        return min(self.fixed, self.successful)


def overlap(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """IoU of two boxes, in scalars."""
    wide = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    high = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    area = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (one, other)]
    return wide * high / (sum(area) - wide * high)


def test_crops_have_the_minimum_iou_of_their_sampler() -> None:
    """The crop of every sampler in turn has its minimum IoU with one of several boxes."""
    generator = np.random.default_rng(3)
    patient = replace(STILL, crop_trials=3000)  # so that nearly all of them succeed
    slack = np.inf
    crops = 0
    for seed in range(40):
        centre, side = generator.uniform(0.4, 0.6, (3, 2)), generator.uniform(0.3, 0.75, (3, 2))
        boxes = np.concatenate((centre - side / 2, centre + side / 2), axis=1)
        for choice, smallest in enumerate((*STILL.crop_overlaps, 0.0), start=1):
            fixed_choice = FixedChoice(seed, choice)
            rectangle = draw_view(fixed_choice, boxes, patient).rectangle
            if fixed_choice.successful < len(STILL.crop_overlaps) + 1:
                continue  # a sampler failed, so crops cannot be assigned to samplers
            slack = min(slack, max(overlap(rectangle, box) for box in boxes) - smallest)
            crops += 1
    print(f"smallest excess over the minimum IoU {slack:.1e} in {crops} crops")
    assert crops > 60
    assert slack >= -1e-12


def test_successful_crops_are_equally_likely() -> None:
    """With a box as large as the image, a crop's IoU is its scale squared, and frequencies have a closed form."""
    draws, first = 6000, SPEC.crop_scale[0]
    box = np.array([[0.0, 0.0, 1.0, 1.0]])
    rectangles = np.array([draw_view(generator_of(0, 0, image), box, STILL).rectangle for image in range(draws)])
    scales = np.sqrt((rectangles[:, 2:] - rectangles[:, :2]).prod(axis=1))
    whole = (rectangles == box).all(axis=1)

    smallest = np.sqrt(np.maximum([*SPEC.crop_overlaps, 0.0], first**2))
    fails = ((smallest - first) / (1 - first)) ** SPEC.crop_trials  # negligible except for 0.9
    always, seldom = [0, 1, 2, 3, 5], 4
    assert fails[always].max() < 1e-5
    met = 1 - fails[seldom]
    # Seven choices if all samplers succeed, six if that of 0.9 fails
    expected_whole = met / 7 + fails[seldom] / 6
    weights = np.full(6, met / 7 + fails[seldom] / 6)
    weights[seldom] = met / 7
    weights /= weights.sum()

    def cumulative(scale: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((np.clip((scale[..., None] - smallest) / (1 - smallest), 0, 1) * weights).sum(axis=-1))

    test = kstest(scales[~whole], cumulative)
    print(
        f"whole image: {whole.mean():.4f}, expected {expected_whole:.4f}; distance of the scales {test.statistic:.4f}"
    )
    assert abs(whole.mean() - expected_whole) < 4 * np.sqrt(expected_whole / draws)
    assert test.pvalue > 0.001


@pytest.mark.parametrize("boxes", [np.zeros((0, 4)), np.array([[0.5, 0.5, 0.52, 0.52]])], ids=["none", "tiny"])
def test_without_a_reachable_iou_the_whole_image_and_a_free_crop_are_equally_likely(boxes: NDArray[np.float64]) -> None:
    """A crop covers at least 0.09 of the image, so its IoU with the tiny box is below every minimum."""
    rectangles = [draw_view(generator_of(1, 0, image), boxes, STILL).rectangle for image in range(2000)]
    whole = np.mean([(rectangle == [0, 0, 1, 1]).all() for rectangle in rectangles])
    print(f"whole image: {whole:.4f}, expected 0.5")
    assert abs(whole - 0.5) < 4 * np.sqrt(0.25 / 2000)


def test_zoom_out_and_mirror_have_the_right_distribution() -> None:
    spec = replace(SPEC, crop_scale=(1.0, 1.0))  # the crop is then the whole canvas
    views = [draw_view(generator_of(2, 0, image), np.zeros((0, 4)), spec) for image in range(4000)]
    rectangles = np.array([view.rectangle for view in views])
    sides = rectangles[:, 2:] - rectangles[:, :2]
    np.testing.assert_allclose(sides[:, 0], sides[:, 1], atol=1e-12)
    zoomed = sides[:, 0] > 1 + 1e-9
    test = kstest(sides[zoomed, 0], lambda side: np.clip((side - 1) / (SPEC.expand_largest - 1), 0, 1))
    place = -rectangles[zoomed, :2] / (sides[zoomed] - 1)
    where = kstest(place.ravel(), "uniform")
    mirrored = np.mean([view.mirrored for view in views])
    print(
        f"zoomed out {zoomed.mean():.4f}, mirrored {mirrored:.4f}, expected 0.5; distance of the ratios "
        f"{test.statistic:.4f}, of the places {where.statistic:.4f}"
    )
    assert max(abs(zoomed.mean() - 0.5), abs(mirrored - 0.5)) < 4 * np.sqrt(0.25 / 4000)
    assert min(test.pvalue, where.pvalue) > 0.001


def test_empty_images_give_batches_without_objects() -> None:
    index, pixels = tiny.rectangles(3, empty=(0, 1, 2))
    training_batches = TrainingBatches(index, pixels, SPEC, seed=0, batch=4, size=SIZE, fill=(0.0, 0.0, 0.0), workers=2)
    for images, targets in training_batches.steps(0, 5):
        assert images.shape == (4, 3, SIZE, SIZE)
        assert torch.isfinite(images).all()
        assert not targets.labels.any()


def test_images_one_pixel_wide_keep_their_boxes_and_pixels() -> None:
    """An image of one colour without photometric distortions: all pixels are exactly that colour or fill."""
    shapes = ((1, 400), (400, 1), (1, 1))
    for width, height in shapes:
        whole: LabelledBox = (0, 0, 0, width, height)
        part: LabelledBox = (1, 0, 0, max(1, width // 2), max(1, height // 2))
        pixels = tiny.Pixels([np.full((height, width, 3), 200, dtype=np.uint8)])
        spec = replace(SPEC, photometric_probability=0.0)
        training_batches = TrainingBatches(
            index_of([[whole, part]], size=(width, height)),
            pixels,
            spec,
            seed=0,
            batch=1,
            size=SIZE,
            fill=(9.0, 9.0, 9.0),
            workers=1,
        )
        boxes_seen = 0
        for epoch in range(60):
            sample = training_batches.sample(0, epoch)
            image = training_batches.collate([sample])[0][0]
            left, top, right, bottom = sample.inside
            assert (image[:, top:bottom, left:right] == 200).all()
            assert ((image == 200) | (image == 9)).all()
            assert (sample.boxes[:, 2:] > sample.boxes[:, :2]).all()
            boxes_seen += len(sample.boxes)
        print(f"{width} x {height}: {boxes_seen} boxes seen in 60 views")
        assert boxes_seen > 60


class SlowFirst(tiny.Pixels):
    """Images whose loading time falls, so that threads finish in another order."""

    loaded = 0

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        self.loaded += 1
        time.sleep(0.02 / self.loaded)
        return super().__getitem__(row)


def test_a_sample_does_not_depend_on_the_order_of_loading() -> None:
    index, pixels = tiny.rectangles(7, empty=(3,))

    def batches(source: tiny.Pixels, workers: int) -> TrainingBatches:
        return TrainingBatches(index, source, SPEC, seed=5, batch=3, size=SIZE, fill=(1.0, 2.0, 3.0), workers=workers)

    plain = batches(pixels, 1)
    expected = [plain.sample(row, epoch) for epoch in range(2) for row in range(7)]
    places = np.random.default_rng(0).permutation(14)
    for place in [*places, *places[::-1]]:
        assert same(plain.sample(int(place % 7), int(place // 7)), expected[place])
    in_turn = list(plain.steps(0, 5))
    largest = 0.0
    for workers in (2, 5):
        slow_first = batches(SlowFirst(pixels.pictures), workers).steps(0, 5)
        for (images, targets), (other, other_targets) in zip(in_turn, slow_first, strict=True):
            largest = max(largest, float((images - other).abs().max()))
            assert torch.equal(targets.boxes, other_targets.boxes)
            assert torch.equal(targets.labels, other_targets.labels)
    print(f"largest difference of a pixel between 1, 2 and 5 workers {largest}")
    assert largest == 0


def same(one: Sample, other: Sample) -> bool:
    return (
        np.array_equal(one.pixels, other.pixels)
        and np.array_equal(one.boxes, other.boxes)
        and np.array_equal(one.labels, other.labels)
        and one.inside == other.inside
    )
