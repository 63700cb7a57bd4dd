"""Augmentation: boxes stay on their pixels, and draws depend only on the seed."""

from __future__ import annotations

import colorsys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from bench.data.augment import (
    WHOLE,
    Photometric,
    View,
    boxes_in_view,
    draw_photometric,
    draw_view,
    generator_of,
    photometric,
)
from bench.data.batches import TrainingBatches, rows_of_step
from bench.data.warp import warp
from bench.spec import AugmentSpec
from tests import tiny

SPEC = AugmentSpec()
NEUTRAL = Photometric(0.0, 1.0, 1.0, 0.0, contrast_first=True)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**31), width=st.integers(40, 500), height=st.integers(40, 500))
def test_boxes_stay_on_their_pixels(seed: int, width: int, height: int) -> None:
    """After zoom-out, crop, mirror and warp, a white rectangle on black is within a pixel of its box."""
    generator = np.random.default_rng(seed)
    low = generator.integers(0, (width // 2, height // 2))
    high = low + generator.integers((8, 8), (width // 2, height // 2))
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[low[1] : high[1], low[0] : high[0]] = 255
    boxes = np.array([[*low, *high]]) / np.array([width, height, width, height])
    view = draw_view(generator, boxes, SPEC)
    seen, stays = boxes_in_view(boxes, view)
    pixels, inside = warp(picture, view, 300)
    if not stays[0]:
        return
    rows, columns = np.nonzero(pixels[..., 0] >= 128)
    if not len(rows):
        assert ((seen[0, 2:] - seen[0, :2]) * 300).min() < 2
        return
    found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    # Interpolation blurs edges, but the line of half intensity moves by less than one output pixel
    np.testing.assert_allclose(found, seen[0] * 300, atol=1.01)
    assert (found >= np.array([*inside[:2], *inside[:2]]) - 1e-9).all()


def test_boxes_stay_if_their_centre_is_visible_and_crowds_if_any_part_is() -> None:
    view = View(np.array([0.5, 0.0, 1.5, 1.0]), mirrored=True)
    boxes = np.array([[0.3, 0.2, 0.6, 0.4], [0.4, 0.2, 0.7, 0.4], [0.3, 0.2, 0.6, 0.4]])
    seen, stays = boxes_in_view(boxes, view, always=np.array([False, False, True]))
    assert stays.tolist() == [False, True, True]
    np.testing.assert_allclose(seen, [[0.8, 0.2, 1.0, 0.4], [0.9, 0.2, 1.0, 0.4]])


def test_successful_crops_and_the_whole_image_are_equally_likely() -> None:
    """All samplers succeed for this box, so the whole image and the six crops have probability 1/7 each."""
    boxes = np.array([[0.05, 0.05, 0.95, 0.95]])
    spec = replace(SPEC, expand_probability=0.0, mirror_probability=0.0, crop_overlaps=(0.1, 0.3, 0.5, 0.6, 0.65))
    views = [draw_view(generator_of(0, 0, image), boxes, spec).rectangle for image in range(2000)]
    areas = np.array([(view[2] - view[0]) * (view[3] - view[1]) for view in views])
    sides = np.array([view[2:] - view[:2] for view in views])
    assert abs((areas == 1).mean() - 1 / 7) < 0.03
    assert sides.min() >= 0.3 / np.sqrt(2) - 1e-9
    assert (sides[:, 0] / sides[:, 1]).min() >= 0.5 - 1e-9
    assert (sides[:, 0] / sides[:, 1]).max() <= 2 + 1e-9
    assert all((view >= 0).all() and (view <= 1).all() for view in views)


def test_a_crop_has_the_minimum_iou_of_its_sampler() -> None:
    """With thirty samplers of 0.7, only the whole image and the sampler without minimum may overlap less."""
    boxes = np.array([[0.2, 0.2, 0.8, 0.8]])
    spec = replace(SPEC, expand_probability=0.0, crop_overlaps=(0.7,) * 30, crop_trials=500)
    reached = []
    for image in range(60):
        x0, y0, x1, y1 = draw_view(generator_of(1, 0, image), boxes, spec).rectangle
        shared = max(0.0, min(x1, 0.8) - max(x0, 0.2)) * max(0.0, min(y1, 0.8) - max(y0, 0.2))
        reached.append(shared / ((x1 - x0) * (y1 - y0) + 0.36 - shared) >= 0.7)
    assert np.mean(reached) > 0.8


def test_without_trials_the_image_is_never_cropped() -> None:
    spec = replace(SPEC, expand_probability=0.0, crop_trials=0)
    views = [draw_view(generator_of(0, 0, image), np.array([[0.2, 0.2, 0.8, 0.8]]), spec) for image in range(20)]
    assert all((view.rectangle == [0, 0, 1, 1]).all() for view in views)
    assert {view.mirrored for view in views} == {False, True}


def test_images_without_boxes_and_thin_images_work() -> None:
    for image in range(50):
        generator = generator_of(0, 0, image)
        view = draw_view(generator, np.zeros((0, 4)), SPEC)
        for shape in ((1, 400, 3), (400, 1, 3), (1, 1, 3)):
            pixels, _ = warp(np.full(shape, 200, dtype=np.uint8), view, 300)
            assert pixels.shape == (300, 300, 3)


def test_a_view_outside_the_image_is_all_fill() -> None:
    pixels, inside = warp(np.full((20, 20, 3), 255, dtype=np.uint8), View(np.array([1.2, 0, 1.6, 1]), False), 300)
    assert not pixels.any()
    assert inside[2] <= inside[0] or inside[3] <= inside[1]


def test_the_whole_image_is_resized_like_pillow() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (210, 333, 3), dtype=np.uint8)
    expected = Image.fromarray(picture).resize((300, 300), Image.Resampling.BILINEAR)
    assert np.array_equal(warp(picture, WHOLE, 300)[0], np.asarray(expected))


def distorted(image: NDArray[np.uint8], **draws: Any) -> NDArray[np.float32]:
    height, width = image.shape[:2]
    return photometric(image, replace(NEUTRAL, **draws), (0, 0, width, height), np.zeros(3, np.float32))


def test_neutral_draws_change_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert np.array_equal(distorted(image), image)


@settings(max_examples=100, deadline=None)
@given(colour=st.tuples(*(st.integers(0, 255),) * 3), hue=st.floats(-0.5, 0.5), saturation=st.floats(0.5, 1.5))
def test_hue_and_saturation_equal_colorsys(colour: tuple[int, int, int], hue: float, saturation: float) -> None:
    ours = distorted(np.array(colour, dtype=np.uint8).reshape(1, 1, 3), hue=hue, saturation=saturation).reshape(3)
    h, s, v = colorsys.rgb_to_hsv(*(value / 255 for value in colour))
    expected = colorsys.hsv_to_rgb((h + hue) % 1, min(1, s * saturation), v)
    np.testing.assert_allclose(ours, np.array(expected) * 255, atol=0.05)


def test_brightness_comes_before_contrast() -> None:
    image = np.full((1, 1, 3), 100, dtype=np.uint8)
    assert distorted(image, brightness=20.0, contrast=1.5).flatten().tolist() == [180.0] * 3
    assert distorted(image, brightness=-120.0).flatten().tolist() == [0.0] * 3
    assert distorted(image, contrast=3.0).flatten().tolist() == [255.0] * 3


def test_pixels_outside_the_image_are_fill() -> None:
    image, fill = np.full((32, 32, 3), 200, dtype=np.uint8), np.array((10.0, 20.0, 30.0), dtype=np.float32)
    inside = np.zeros((32, 32), dtype=bool)
    inside[8:20, 4:30] = True
    draws = replace(NEUTRAL, brightness=20.0, saturation=1.5, hue=0.1)
    result = photometric(image, draws, (4, 8, 30, 20), fill)
    assert (result[~inside] == fill).all()
    assert not (result[inside] == fill).all(axis=1).any()
    assert (photometric(image, draws, (0, 0, 0, 0), fill) == fill).all()


def test_each_distortion_is_drawn_independently() -> None:
    draws = [draw_photometric(generator_of(0, 0, image), SPEC) for image in range(2000)]
    for name, neutral in (("brightness", 0.0), ("contrast", 1.0), ("saturation", 1.0), ("hue", 0.0)):
        share = np.mean([getattr(draw, name) != neutral for draw in draws])
        assert abs(share - 0.5) < 0.04, name
    assert max(abs(draw.hue) for draw in draws) <= 0.1  # 36 of 360 degrees
    assert max(abs(draw.brightness) for draw in draws) <= 32


@given(batch=st.integers(1, 9), images=st.integers(1, 12), seed=st.integers(0, 99))
def test_each_epoch_shows_each_image_once(batch: int, images: int, seed: int) -> None:
    steps = -(-3 * images // batch)
    rows = np.concatenate([rows_of_step(s, batch=batch, images=images, seed=seed)[0] for s in range(steps)])
    for epoch in range(3):
        assert sorted(rows[epoch * images : (epoch + 1) * images]) == list(range(images))


def batches(workers: int, seed: int = 0) -> TrainingBatches:
    index, pixels = tiny.rectangles(5, empty=(1,))
    fill = (10.0, 20.0, 30.0)
    return TrainingBatches(index, pixels, SPEC, seed=seed, batch=3, size=300, fill=fill, workers=workers)


@pytest.mark.usefixtures("either_way")
def test_batches_do_not_depend_on_workers_or_the_first_step() -> None:
    first, again, later = list(batches(1).steps(0, 4)), list(batches(4).steps(0, 4)), list(batches(2).steps(2, 4))
    for (images, targets), (other, other_targets) in zip([*first, *first[2:]], [*again, *later], strict=True):
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(images, other)
        assert torch.equal(targets.boxes, other_targets.boxes)
        assert torch.equal(targets.labels, other_targets.labels)
    assert not torch.equal(next(batches(1, seed=1).steps(0, 1))[0], first[0][0])


def test_photometric_distortions_do_not_change_the_fill() -> None:
    result = batches(1)
    for row in range(5):
        for epoch in range(6):
            sample = result.sample(row, epoch)
            image = result.collate([sample])[0][0]
            left, top, right, bottom = sample.inside
            outside = torch.ones(300, 300, dtype=torch.bool)
            outside[top:bottom, left:right] = False
            for channel, value in zip(image, (10.0, 20.0, 30.0), strict=True):
                assert (channel[outside] == value).all()
