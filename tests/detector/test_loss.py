"""The loss equals torchvision's if its matcher agrees with ours; hard negatives per image; gradients."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torchvision.models.detection._utils import BoxCoder, SSDMatcher
from torchvision.models.detection.ssd import SSD as TheirSSD
from torchvision.ops import box_iou, complete_box_iou_loss, sigmoid_focal_loss

from bench.data.targets import Targets
from bench.detector.boxes import decode, encode, overlaps, to_centres, to_corners
from bench.detector.loss import complete_iou, cross_entropy, focal, hard_negatives, multibox_loss
from bench.detector.matching import match
from bench.detector.priors import prior_boxes
from bench.detector.ssd import SSD, bias_of
from bench.errors import UserError
from tests import tiny
from tests.detector.oracles import padded, random_boxes

SPEC = tiny.specification(classes=4).detector
PRIORS = prior_boxes(SPEC)


@pytest.mark.parametrize("seed", range(5))
def test_loss_equals_torchvision(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = [random_boxes(generator, count) for count in (3, 1, 5)]
    targets = padded(images)
    labels = torch.randint(1, 5, targets.labels.shape, generator=generator) * (targets.labels > 0)
    targets = Targets(targets.boxes, labels, targets.crowd)
    corners = to_corners(PRIORS)
    theirs = [SSDMatcher(0.5)(box_iou(boxes, corners)) for boxes in images]
    ours = match(targets, corners, 0.5)
    assert all(torch.equal(a.clamp(min=-1), b) for a, b in zip(ours, theirs, strict=True)), "not a sound case"

    logits = torch.randn(3, 8732, 5, generator=generator, requires_grad=True)
    offsets = torch.randn(3, 8732, 4, generator=generator, requires_grad=True)
    loss = multibox_loss(SPEC, logits, offsets, priors=PRIORS, targets=targets)
    stand_in = SimpleNamespace(box_coder=BoxCoder(weights=(10.0, 10.0, 5.0, 5.0)), neg_to_pos_ratio=3)
    expected = TheirSSD.compute_loss(
        stand_in,
        [{"boxes": b, "labels": t[: len(b)]} for b, t in zip(images, labels, strict=True)],
        {"bbox_regression": offsets, "cls_logits": logits},
        [corners] * 3,
        theirs,
    )
    assert float(loss.boxes) == pytest.approx(float(expected["bbox_regression"].detach()), rel=1e-5)
    assert float(loss.classes) == pytest.approx(float(expected["classification"].detach()), rel=1e-5)
    ours_gradient = torch.autograd.grad(loss.total, (logits, offsets), retain_graph=True)
    their_gradient = torch.autograd.grad(sum(expected.values()), (logits, offsets))
    for a, b in zip(ours_gradient, their_gradient, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)
    largest = max(float((a - b).abs().max()) for a, b in zip(ours_gradient, their_gradient, strict=True))
    relative = abs(float(loss.total.detach()) / float(sum(expected.values()).detach()) - 1)
    print(f"loss: relative difference {relative:.1e}, largest difference of a gradient {largest:.1e}")


def test_gradients_equal_finite_differences() -> None:
    """Steps along random directions are small enough that the hard negatives stay the same."""
    generator = torch.Generator().manual_seed(0)
    targets = padded([random_boxes(generator, 3), random_boxes(generator, 1)])
    logits = torch.randn(2, 8732, 5, generator=generator, requires_grad=True)
    offsets = torch.randn(2, 8732, 4, generator=generator, requires_grad=True)

    def total(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return multibox_loss(SPEC, a, b, priors=PRIORS, targets=targets).total

    gradients = torch.autograd.grad(total(logits, offsets), (logits, offsets))
    errors, sizes = [], []
    for _ in range(5):
        signs = [torch.randn(part.shape, generator=generator).sign() for part in (logits, offsets)]
        expected = sum(float((gradient * sign).sum()) for gradient, sign in zip(gradients, signs, strict=True))
        with torch.no_grad():
            step = 1e-3
            ahead = total(logits + step * signs[0], offsets + step * signs[1])
            behind = total(logits - step * signs[0], offsets - step * signs[1])
        errors.append(abs(float(ahead - behind) / (2 * step) - expected))
        sizes.append(abs(expected))
    print(f"largest error of a directional derivative {max(errors):.1e}; they are {min(sizes):.2f} to {max(sizes):.2f}")
    assert max(errors) < 0.005 < 0.05 * max(sizes)


@pytest.mark.parametrize("kind", ["box_loss", "class_loss"])
def test_unknown_losses_are_errors(kind: str) -> None:
    spec = replace(SPEC, **{kind: "no_loss"})  # type: ignore[arg-type]
    logits, offsets = torch.zeros(1, 8732, 5), torch.zeros(1, 8732, 4)
    targets = padded([random_boxes(torch.Generator().manual_seed(0), 1)])
    with pytest.raises(UserError, match=rf"unknown {kind.replace('_', ' ')} 'no_loss'. Choose one of "):
        multibox_loss(spec, logits, offsets, priors=PRIORS, targets=targets)


def test_avoiding_synchronisation_gives_the_same_loss_and_gradients() -> None:
    """With `avoid_sync`, as on CUDA, no shape depends on the data."""
    generator = torch.Generator().manual_seed(0)
    targets = padded([random_boxes(generator, count) for count in (3, 0, 12)])
    logits = torch.randn(3, 8732, 5, generator=generator, requires_grad=True)
    offsets = torch.randn(3, 8732, 4, generator=generator, requires_grad=True)
    dynamic, masked = (
        multibox_loss(SPEC, logits, offsets, priors=PRIORS, targets=targets, avoid_sync=avoid_sync)
        for avoid_sync in (False, True)
    )
    assert float(dynamic.boxes) == pytest.approx(float(masked.boxes), rel=1e-5)
    assert float(dynamic.classes) == pytest.approx(float(masked.classes), rel=1e-5)
    gradients = [torch.autograd.grad(loss.total, (logits, offsets)) for loss in (dynamic, masked)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("outputs", [2, 14, 21, 91])
def test_cross_entropy_equals_torch(outputs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (20 * torch.randn(3, 50, outputs, generator=generator)).requires_grad_()
    labels = torch.randint(0, outputs, (3, 50), generator=generator)
    ours, theirs = cross_entropy(logits, labels), F.cross_entropy(logits.mT, labels, reduction="none")
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    to_ours, to_theirs = (torch.autograd.grad(each.sum(), logits)[0] for each in (ours, theirs))
    torch.testing.assert_close(to_ours, to_theirs)


def test_the_focal_loss_of_one_class_equals_torchvision() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (5 * torch.randn(500, 2, generator=generator)).requires_grad_()
    labels = torch.randint(0, 2, (500,), generator=generator)
    ours = focal(logits, labels)
    theirs = sigmoid_focal_loss(logits[:, 1] - logits[:, 0], labels.float())
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    to_ours, to_theirs = (torch.autograd.grad(each.sum(), logits)[0] for each in (ours, theirs))
    torch.testing.assert_close(to_ours, to_theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("avoid_sync", [False, True])
def test_without_hard_negatives_all_negatives_are_learnt_from(avoid_sync: bool) -> None:
    """The priors between positive and negative, and crowds, stay ignored."""
    spec = replace(SPEC, class_loss="focal", negatives_per_positive=0)
    generator = torch.Generator().manual_seed(0)
    targets = padded([random_boxes(generator, 3), random_boxes(generator, 1)])
    logits = torch.randn(2, 8732, 5, generator=generator)
    loss = multibox_loss(spec, logits, torch.zeros(2, 8732, 4), priors=PRIORS, targets=targets, avoid_sync=avoid_sync)
    matched = match(targets, to_corners(PRIORS), 0.5)
    labels = targets.labels.gather(1, matched.clamp(min=0)).masked_fill(matched < 0, 0)
    each = focal(logits, labels)
    expected = each[matched >= -1].sum() / (matched >= 0).sum()
    assert float(loss.classes) == pytest.approx(float(expected), rel=1e-5)


def test_the_complete_iou_loss_is_torchvisions_on_decoded_boxes() -> None:
    generator = torch.Generator().manual_seed(0)
    truths, priors = random_boxes(generator, 200), to_centres(random_boxes(generator, 200))
    wanted = encode(truths, priors, SPEC.variances)
    offsets = (wanted + torch.randn(200, 4, generator=generator)).requires_grad_()
    loss = complete_iou(offsets, wanted, priors, SPEC)
    theirs = complete_box_iou_loss(300 * decode(offsets, priors, SPEC.variances), 300 * truths)
    torch.testing.assert_close(loss, 5 * theirs, rtol=1e-4, atol=1e-5)
    assert torch.isfinite(torch.autograd.grad(loss.sum(), offsets)[0]).all()
    assert float(complete_iou(wanted, wanted, priors, SPEC).abs().max()) < 1e-4


@pytest.mark.parametrize("avoid_sync", [False, True])
def test_hard_negatives_per_image_are_three_times_the_positives_and_at_least_three(avoid_sync: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    loss = torch.rand(4, 50, generator=generator)
    loss[3] = 0.5  # ties
    matched = torch.full((4, 50), -1)
    matched[0, :2] = 0
    matched[1, :40] = 0
    matched[2, :10] = -2
    hard = hard_negatives(loss, matched, ratio=3, avoid_sync=avoid_sync)
    assert hard.sum(dim=1).tolist() == [6, 10, 3, 3]
    assert not hard[matched != -1].any()
    assert set(hard[0].nonzero()[:, 0].tolist()) == set((loss[0, 2:].topk(6).indices + 2).tolist())


@pytest.mark.parametrize("seed", range(20))
def test_ties_among_hard_negatives_go_to_the_first_priors(seed: int) -> None:
    """Losses with few distinct values; images with many, no and too many positives."""
    generator = torch.Generator().manual_seed(seed)
    loss = torch.randint(0, 4, (12, 60), generator=generator) / 4
    share = torch.linspace(0, 1, 12)[:, None]
    matched = torch.where(
        torch.rand(12, 60, generator=generator) < share, 0, torch.randint(-2, 0, (12, 60), generator=generator)
    )
    dynamic, masked = (hard_negatives(loss, matched, ratio=3, avoid_sync=avoid_sync) for avoid_sync in (False, True))
    assert torch.equal(dynamic, masked)
    assert not dynamic[matched != -1].any()


@pytest.mark.parametrize("avoid_sync", [False, True])
def test_nan_losses_are_hard_negatives(avoid_sync: bool) -> None:
    loss = torch.rand(3, 50, generator=torch.Generator().manual_seed(0))
    loss[:, 7], loss[2] = torch.nan, torch.nan
    hard = hard_negatives(loss, torch.full((3, 50), -1), ratio=3, avoid_sync=avoid_sync)
    assert hard[:2, 7].all()
    assert hard[2].any()


def test_gradients_are_finite_with_one_class_and_no_boxes() -> None:
    spec = tiny.specification(classes=1).detector
    model = SSD(spec, seed=0)
    loss = model.loss(torch.zeros(2, 3, 300, 300), padded([torch.zeros(0, 4), torch.zeros(0, 4)]))
    loss.total.backward()
    assert float(loss.boxes) == 0
    assert float(loss.classes) > 0
    gradients = [value.grad for value in model.parameters() if value.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_initial_biases_favour_the_background() -> None:
    """With zero features the biases alone give the objects their initial probability."""
    model = SSD(replace(SPEC, object_probability=0.1), seed=0)
    bias = bias_of(model.class_heads[0]).detach().view(-1, 5)
    probability = bias.softmax(dim=1)
    torch.testing.assert_close(probability[:, 1:].sum(dim=1), torch.full((4,), 0.1))
    undecided = math.log(5)
    assert float(-probability[:, 0].log().mean()) < undecided / 10


def test_box_coding_is_invertible_and_equals_torchvision() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = random_boxes(generator, 500)
    priors = to_centres(random_boxes(generator, 500))
    offsets = encode(boxes, priors, (0.1, 0.2))
    theirs = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
    torch.testing.assert_close(offsets, theirs.encode_single(boxes, to_corners(priors)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(decode(offsets, priors, (0.1, 0.2)), boxes, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(overlaps(boxes, to_corners(priors)), box_iou(boxes, to_corners(priors)))
    there_and_back = float((decode(offsets, priors, (0.1, 0.2)) - boxes).abs().max())
    to_theirs = float((offsets - theirs.encode_single(boxes, to_corners(priors))).abs().max())
    print(f"round trip {there_and_back:.1e} of the image; largest difference from BoxCoder {to_theirs:.1e}")
    wild = torch.full((1, 4), 1e4)
    assert torch.isfinite(decode(wild, priors[:1], (0.1, 0.2))).all()
