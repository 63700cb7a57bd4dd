"""Box arithmetic equals torchvision, and decoding inverts encoding."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_convert, box_iou

from bench.detector.boxes import areas, decode, encode, intersections, overlaps, to_centres, to_corners

VARIANCES = (0.1, 0.2)


def random_boxes(count: int, seed: int) -> Tensor:
    """(count, 4) float32 xyxy in [0, 1], sides of at least 0.02: decoding clamps ratios of sides above 62.5."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * 0.9
    size = 0.02 + torch.rand(count, 2, generator=generator) * (0.98 - low)
    return torch.cat((low, low + size), dim=1)


@given(seed=st.integers(0, 2**32))
def test_formats_equal_torchvision(seed: int) -> None:
    boxes = random_boxes(20, seed)
    torch.testing.assert_close(to_centres(boxes), box_convert(boxes, "xyxy", "cxcywh"))
    torch.testing.assert_close(to_corners(to_centres(boxes)), boxes, rtol=0, atol=1e-6)


@given(seed=st.integers(0, 2**32))
def test_overlaps_equal_torchvision(seed: int) -> None:
    first, second = random_boxes(17, seed), random_boxes(5, seed + 1)
    torch.testing.assert_close(overlaps(first, second), box_iou(first, second), rtol=1e-6, atol=1e-7)


def test_overlaps_of_known_boxes() -> None:
    first = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    second = torch.tensor([[1.0, 1.0, 3.0, 3.0], [0.0, 0.0, 2.0, 2.0], [2.0, 0.0, 4.0, 2.0], [0.0, 0.0, 1.0, 1.0]])
    assert intersections(first, second).tolist() == [[1.0, 4.0, 0.0, 1.0]]
    assert areas(second).tolist() == [4.0, 4.0, 4.0, 1.0]
    torch.testing.assert_close(overlaps(first, second), torch.tensor([[1 / 7, 1.0, 0.0, 0.25]]))


def test_overlaps_of_empty_boxes_are_zero() -> None:
    empty = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.2, 0.1, 0.2, 0.9], [0.0, 0.0, 0.0, 0.0]])
    assert overlaps(empty, empty).tolist() == [[0.0] * 3] * 3


def test_overlaps_keep_leading_dimensions_and_do_not_change_arguments() -> None:
    first, second = random_boxes(12, 0).view(3, 4, 4), random_boxes(7, 1)
    before = first.clone(), second.clone()
    result = overlaps(first, second)
    assert result.shape == (3, 4, 7)
    torch.testing.assert_close(result[2], box_iou(first[2], second))
    assert torch.equal(first, before[0])
    assert torch.equal(second, before[1])


@given(seed=st.integers(0, 2**32))
def test_decode_inverts_encode(seed: int) -> None:
    boxes, priors = random_boxes(30, seed), to_centres(random_boxes(30, seed + 1))
    torch.testing.assert_close(decode(encode(boxes, priors, VARIANCES), priors, VARIANCES), boxes, rtol=0, atol=1e-5)


@given(seed=st.integers(0, 2**32))
def test_coding_equals_torchvision(seed: int) -> None:
    boxes, priors = random_boxes(30, seed), random_boxes(30, seed + 1)
    coder = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
    torch.testing.assert_close(
        encode(boxes, to_centres(priors), VARIANCES), coder.encode_single(boxes, priors), rtol=1e-3, atol=1e-3
    )
    # Also for offsets far beyond those of a trained network, where both clamp the side
    offsets = torch.randn(30, 4, generator=torch.Generator().manual_seed(seed)) * 40
    torch.testing.assert_close(
        decode(offsets, to_centres(priors), VARIANCES), coder.decode_single(offsets, priors), rtol=1e-4, atol=1e-3
    )


def test_offsets_of_a_known_box() -> None:
    prior = torch.tensor([[0.5, 0.5, 0.2, 0.4]])
    box = torch.tensor([[0.5, 0.4, 0.7, 0.8]])  # centre 0.6, 0.6 and sides 0.2, 0.4
    torch.testing.assert_close(encode(box, prior, VARIANCES), torch.tensor([[5.0, 2.5, 0.0, 0.0]]), rtol=0, atol=1e-5)
    twice = torch.tensor([[0.3, 0.1, 0.7, 0.9]])
    expected = torch.tensor([[0.0, 0.0, 5 * 0.6931472, 5 * 0.6931472]])
    torch.testing.assert_close(encode(twice, prior, VARIANCES), expected, rtol=0, atol=1e-5)
