"""A batch that is warped together, as on CUDA, beside images that are warped one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data.augment import WHOLE, View
from bench.data.batches import TrainingBatches
from bench.data.warp import placement, warp, warp_together
from bench.spec import AugmentSpec
from tests import tiny

RNG = np.random.default_rng(0)
PICTURES = [
    RNG.integers(0, 256, shape, dtype=np.uint8) for shape in ((240, 320, 3), (900, 500, 3), (31, 47, 3), (300, 300, 3))
]
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
    ),
]


def together(views: list[View], size: int, device: str) -> tuple[torch.Tensor, list[tuple[int, int, int, int]]]:
    placed = [
        placement(view, picture.shape[1], picture.shape[0], size) for view, picture in zip(views, PICTURES, strict=True)
    ]
    parts = [each.cut(picture) for each, picture in zip(placed, PICTURES, strict=True)]
    return warp_together(parts, placed, size, device).cpu(), [each.inside for each in placed]


COORDINATE = st.floats(-2, 0.9)
VIEWS = st.builds(
    lambda low, size, mirrored: View(np.array([low[0], low[1], low[0] + size[0], low[1] + size[1]]), mirrored),
    st.tuples(COORDINATE, COORDINATE),
    st.tuples(st.floats(0.1, 4), st.floats(0.1, 4)),
    st.booleans(),
)


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=60, deadline=None)
@given(views=st.lists(VIEWS, min_size=len(PICTURES), max_size=len(PICTURES)))
def test_it_is_pillows_warp_but_for_rounding(views: list[View], device: str) -> None:
    """On noise, the hardest picture; Pillow rounds twice, and keeps corners in single precision."""
    batch, inside = together(views, 150, device)
    for made, own, view, picture in zip(batch, inside, views, PICTURES, strict=True):
        expected, expected_inside = warp(picture, view, 150)
        assert own == expected_inside
        difference = np.abs(made.permute(1, 2, 0).numpy() - expected)
        assert difference.max() <= 5
        assert difference.mean() < 0.5


@pytest.mark.parametrize("device", DEVICES)
def test_a_whole_picture_of_the_inputs_size_stays_as_it_is(device: str) -> None:
    batch, _ = together([WHOLE] * len(PICTURES), 300, device)
    torch.testing.assert_close(batch[3], torch.from_numpy(PICTURES[3]).permute(2, 0, 1).float(), rtol=0, atol=0.3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("photometric", [0.0, 0.5])
def test_the_batches_of_a_training_are_the_same(device: str, photometric: float) -> None:
    index, pixels = tiny.rectangles(5, empty=(1,))
    augment = replace(AugmentSpec(), photometric_probability=photometric)

    def batches(where: str, *, at_once: bool) -> TrainingBatches:
        fill = (10.0, 20.0, 30.0)
        return TrainingBatches(
            index, pixels, augment, seed=0, batch=4, size=300, fill=fill, workers=2, device=where, together=at_once
        )

    apart, at_once = batches("cpu", at_once=False), batches(device, at_once=True)
    largest = 0.0
    for (one, targets), (other, others) in zip(apart.steps(0, 5), at_once.steps(0, 5), strict=True):
        assert other.device.type == device
        assert other.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(targets.boxes, others.boxes)
        assert torch.equal(targets.labels, others.labels)
        # Where grey is all but grey, a rounding of a level turns its hue
        difference = (one - other.cpu()).abs()
        assert float(difference.mean()) < 0.6
        assert float((difference > 6).float().mean()) < 0.005
        largest = max(largest, float(difference.max()))
    print(f"largest difference {largest:.2f} of 255")
