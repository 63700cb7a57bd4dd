"""Final boxes of a batch equal torchvision's suppression for each image and class."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

from bench.detector import postprocess
from bench.detector.boxes import decode
from bench.detector.postprocess import BatchDetections, detect, margins, probabilities, suppress
from bench.detector.priors import prior_boxes
from bench.spec import DetectorSpec
from tests import tiny

BASE = tiny.specification().detector


pytestmark = pytest.mark.usefixtures("either_way")


def reference(spec: DetectorSpec, logits: Tensor, offsets: Tensor, priors: Tensor) -> list[set[tuple[float, ...]]]:
    """For each image, the (score, label, box) that SSD's rules keep."""
    kept = []
    for scores, coded in zip(probabilities(logits), offsets, strict=True):
        boxes = decode(coded, priors, spec.variances).clamp(0, 1)
        found = []
        for label in range(scores.shape[1] - 1):
            of_class = scores[:, label + 1]
            rows = (of_class > spec.score_threshold).nonzero()[:, 0]
            rows = rows[of_class[rows].argsort(descending=True, stable=True)][: spec.candidates_per_class]
            rows = rows[nms(boxes[rows], of_class[rows], spec.nms_threshold)]
            found += [(float(of_class[row]), label, *boxes[row].tolist()) for row in rows]
        found.sort(key=lambda entry: -entry[0])
        kept.append(set(found[: spec.detections_per_image]))
    return kept


@pytest.mark.parametrize("first", [postprocess.FIRST_PRIORS, 10])
@pytest.mark.parametrize("classes", [1, 5, 90])
@pytest.mark.parametrize("scale", [0.5, 3.0, 8.0])
def test_detections_equal_the_reference(
    classes: int, scale: float, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postprocess, "FIRST_PRIORS", first)  # 10 are too few, so all priors are used
    generator = torch.Generator().manual_seed(classes)
    spec = replace(BASE, classes=classes, candidates_per_class=60, detections_per_image=50)
    priors = prior_boxes(spec)[torch.randperm(8732, generator=generator)[:400]]
    logits = scale * torch.randn(3, 400, classes + 1, generator=generator)
    offsets = torch.randn(3, 400, 4, generator=generator)
    ours = detect(spec, logits, offsets, priors)
    for image, expected in enumerate(reference(spec, logits, offsets, priors)):
        own = ours.image == image
        scores, labels, boxes = ours.scores[own], ours.labels[own], ours.boxes[own]
        found = {(float(s), int(k), *b.tolist()) for s, k, b in zip(scores, labels, boxes, strict=True)}
        assert found == expected
        assert torch.equal(scores, scores.sort(descending=True).values)


@pytest.mark.parametrize("classes", [1, 3, 20])
def test_selecting_candidates_before_sorting_changes_nothing(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Integer logits, so that many candidates tie with the last one."""
    spec = replace(BASE, classes=classes, candidates_per_class=60, detections_per_image=50)
    generator = torch.Generator().manual_seed(classes)
    logits, offsets = torch.randn(3, 8732, classes + 1, generator=generator).round(), torch.zeros(3, 8732, 4)
    found: list[BatchDetections] = []
    calls: list[int] = []
    candidate_floor = postprocess._candidate_floor

    def recorded(spec: DetectorSpec, logits: Tensor) -> Tensor:
        calls.append(len(found))
        return candidate_floor(spec, logits)

    monkeypatch.setattr(postprocess, "_candidate_floor", recorded)
    monkeypatch.setattr(postprocess, "FIRST_PRIORS", 8732)
    for share in (0.0, 1.0):
        monkeypatch.setattr(postprocess, "PRESELECT_SHARE", share)
        found.append(detect(spec, logits, offsets, prior_boxes(spec)))
    assert calls == [0]
    assert len(found[0].scores)
    assert all(torch.equal(a, b) for a, b in zip(vars(found[0]).values(), vars(found[1]).values(), strict=True))


@pytest.mark.parametrize("outputs", [2, 13, 16, 91])
def test_probabilities_equal_softmax(outputs: int) -> None:
    logits = 5 * torch.randn(500, outputs, generator=torch.Generator().manual_seed(outputs))
    logits[::7, 0], logits[::11, -1] = 90.0, -torch.inf
    torch.testing.assert_close(probabilities(logits), logits.softmax(-1), rtol=postprocess.PROBABILITY_ROUNDING, atol=0)


@pytest.mark.parametrize("outputs", [2, 3, 16, 17, 18, 33, 91])
def test_margins_equal_their_definition(outputs: int) -> None:
    logits = torch.randn(3, 57, outputs, generator=torch.Generator().manual_seed(outputs))
    logits[0, ::5, 1:], logits[1, ::5, 0], logits[2, ::5, -1] = -torch.inf, -torch.inf, torch.inf
    assert torch.equal(margins(logits), logits[..., 1:].amax(-1) - logits[..., 0])


@pytest.mark.parametrize("first", [postprocess.FIRST_PRIORS, 10])
def test_nan_is_never_detected(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN logits of some or all priors of an image do not change the detections of other priors."""
    monkeypatch.setattr(postprocess, "FIRST_PRIORS", first)
    generator = torch.Generator().manual_seed(0)
    priors = prior_boxes(BASE)[torch.randperm(8732, generator=generator)[:400]]
    logits, offsets = torch.randn(3, 400, BASE.classes + 1, generator=generator), torch.zeros(3, 400, 4)
    logits[1, ::3], logits[2] = -torch.inf, -torch.inf
    logits[1:, :, 0] = logits[1:, :, 0].clamp(min=-9)
    expected = detect(BASE, logits, offsets, priors)
    logits[1, ::3, 1], logits[2, :, 0] = torch.nan, torch.nan
    found = detect(BASE, logits, offsets, priors)
    assert (expected.image == 2).sum() == 0 < (expected.image == 1).sum()
    for ours, theirs in zip(vars(found).values(), vars(expected).values(), strict=True):
        assert torch.equal(ours, theirs)


def test_no_score_above_the_threshold_gives_no_detection() -> None:
    logits = torch.zeros(2, 8732, 3)
    logits[..., 0] = 20
    assert len(detect(BASE, logits, torch.zeros(2, 8732, 4), prior_boxes(BASE)).scores) == 0


@pytest.mark.parametrize("seed", range(8))
def test_suppression_equals_batched_nms(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clusters, chains of overlaps, identical and empty boxes, in groups of very different sizes."""
    monkeypatch.setattr(postprocess, "PAIRS_AT_ONCE", 2000)  # so that groups are processed in several chunks
    generator = torch.Generator().manual_seed(seed)
    group = torch.randint(12, (600,), generator=generator).pow(2).sort().values
    centres = torch.rand(40, 4, generator=generator)[torch.randint(40, (600,), generator=generator)]
    boxes = centres * 0.5 + 0.02 * torch.rand(600, 4, generator=generator)
    boxes[:, 2:] += boxes[:, :2]
    boxes[::50, 2:] = boxes[::50, :2]
    boxes[1::70] = boxes[0]
    scores = torch.linspace(1, 0.1, 600)
    kept = suppress(boxes, group, threshold=0.45)
    expected = torch.zeros(600, dtype=torch.bool)
    expected[batched_nms(boxes * 8, scores, group, 0.45)] = True
    assert torch.equal(kept, expected)


def test_suppression_of_thousands_of_groups_equals_nms() -> None:
    """Groups of 0 to 40 boxes: random, clustered, empty or identical, all in one call."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 41, (4000,), generator=generator)
    group = torch.repeat_interleave(torch.arange(4000), counts)
    places = torch.randint(1, 40, (4000,), generator=generator)[group]  # few places, so that many boxes overlap
    place = (torch.rand(len(group), generator=generator) * places).long()
    boxes = torch.rand(40, 4, generator=generator)[place] * 0.5
    boxes += (
        0.05 * (group % 3)[:, None] * torch.rand(len(group), 4, generator=generator)
    )  # a third of the groups has identical boxes
    boxes[:, 2:] += boxes[:, :2]
    empty = torch.rand(len(group), generator=generator) < 0.05
    boxes[empty, 2:] = boxes[empty, :2]
    kept = suppress(boxes, group, threshold=0.45)
    different = 0
    for own, found in zip(boxes.split(counts.tolist()), kept.split(counts.tolist()), strict=True):
        expected = torch.zeros(len(own), dtype=torch.bool)
        expected[nms(own, torch.linspace(1, 0, len(own)), 0.45)] = True
        different += int((expected != found).sum())
    print(f"{len(counts)} groups of {len(group)} boxes, {int(kept.sum())} kept: {different} differ from nms")
    assert different == 0


def test_a_chain_of_overlaps_is_suppressed_greedily() -> None:
    """Each box overlaps only its neighbours, so every second box is kept."""
    left = torch.arange(9) * 0.3
    boxes = torch.stack((left, torch.zeros(9), left + 1, torch.ones(9)), dim=1)
    kept = suppress(boxes, torch.zeros(9, dtype=torch.long), threshold=0.45)
    assert kept.tolist() == [place % 2 == 0 for place in range(9)]


@pytest.mark.parametrize("seed", range(100))
def test_ties_and_identical_boxes_equal_the_reference(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four distinct scores and few places: the order of ties decides which boxes are kept."""
    monkeypatch.setattr(postprocess, "FIRST_PRIORS", 7)
    generator = torch.Generator().manual_seed(seed)
    classes = 1 + seed % 4
    spec = replace(BASE, classes=classes, candidates_per_class=20, detections_per_image=25)
    priors = torch.rand(6, 4, generator=generator)[torch.randint(6, (80,), generator=generator)] * 0.5 + 0.25
    logits = torch.randint(0, 4, (2, 80, classes + 1), generator=generator).float()
    offsets = torch.randint(-1, 2, (2, 80, 4), generator=generator).float()
    offsets[:, ::9, 2:] = -1000.0  # sides of zero
    ours = detect(spec, logits, offsets, priors)
    for image, expected in enumerate(reference(spec, logits, offsets, priors)):
        own = ours.image == image
        found = [
            (float(s), int(k), *b.tolist())
            for s, k, b in zip(ours.scores[own], ours.labels[own], ours.boxes[own], strict=True)
        ]
        assert len(found) <= 25
        # SSD's rules do not say which of several boxes with the lowest score are dropped
        last = found[-1][0] if found else 0.0
        assert {entry for entry in found if entry[0] > last} == {entry for entry in expected if entry[0] > last}


def test_candidates_and_detections_are_limited_as_in_the_paper() -> None:
    """Boxes of one class without overlap: 400 candidates, and the best 200 are kept."""
    places = torch.stack(torch.meshgrid(torch.arange(30), torch.arange(30), indexing="ij"), dim=-1).view(-1, 2)
    priors = torch.cat(((places + 0.5) / 30, torch.full((900, 2), 1 / 60)), dim=1)
    logits = torch.zeros(1, 900, 2)
    logits[0, :, 1] = torch.linspace(3, -3, 900)[torch.randperm(900, generator=torch.Generator().manual_seed(0))]
    spec = replace(BASE, classes=1)
    found = detect(spec, logits, torch.zeros(1, 900, 4), priors)
    torch.testing.assert_close(found.scores, logits.softmax(-1)[0, :, 1].sort(descending=True).values[:200])
    all_left = detect(replace(spec, detections_per_image=1000), logits, torch.zeros(1, 900, 4), priors)
    assert len(all_left.scores) == 400


def test_a_score_equal_to_the_threshold_is_dropped() -> None:
    priors = torch.tensor([[0.2, 0.2, 0.1, 0.1], [0.7, 0.7, 0.1, 0.1]])
    logits = torch.tensor([[[0.0, 0.0], [0.0, 0.1]]])
    found = detect(replace(BASE, classes=1, score_threshold=0.5), logits, torch.zeros(1, 2, 4), priors)
    torch.testing.assert_close(found.boxes, torch.tensor([[0.65, 0.65, 0.75, 0.75]]))


def test_an_iou_equal_to_the_threshold_is_kept() -> None:
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.5], [0.0, 0.0, 1.0, 0.75]])
    kept = suppress(boxes, torch.zeros(3, dtype=torch.long), threshold=0.5)
    assert kept.tolist() == [True, True, False]
    assert kept.nonzero()[:, 0].tolist() == nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist()
