"""Speed of the parts, apart: network, final boxes, both together, evaluation, re-accumulation.

Not run with the other tests. To run them, and to compare with an earlier run on the same machine:

    pytest tests/benchmarks -o addopts= --benchmark-only --benchmark-autosave
    pytest tests/benchmarks -o addopts= --benchmark-only --benchmark-compare

Weights are random: the network costs the same with any, and the outputs that final boxes are made from
are drawn so that about as many priors find something as in a photograph. Speed with trained weights on
real images is in the records of a run.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from bench.data.index import ImageIndex
from bench.detector.detections import detect
from bench.detector.priors import preset_shapes
from bench.detector.ssd import SSD
from bench.evaluation import Detections, evaluate
from bench.matches import average_precision
from bench.throughput import SpeedSettings, device_description, measure_inference, timed_call
from variants.baseline import baseline, training_of

CLASSES = 20
ROUNDS = 10
BATCHES = (1, 8)


@pytest.fixture(
    scope="module",
    params=[
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
            ],
        ),
    ],
)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture(scope="module")
def detector(device: torch.device) -> SSD:
    specification = baseline(
        classes=CLASSES,
        backbone="efficientnet_lite0",
        weights="none",
        weights_fingerprint="",
        priors=preset_shapes("coco"),
        training=training_of("smoke", 100, scenes=False),
    )
    model = SSD(specification.detector, seed=0).to(device).eval()
    return model.to(memory_format=torch.channels_last)


@pytest.fixture
def images(detector: SSD, device: torch.device) -> Tensor:
    side = detector.spec.size
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, 256, (max(BATCHES), 3, side, side), dtype=torch.uint8, generator=generator)
    return drawn.to(device, memory_format=torch.channels_last)


def outputs_of_a_trained_network(detector: SSD, batch: int) -> tuple[Tensor, Tensor]:
    """Logits that are background but for one prior in a hundred, and small offsets."""
    generator = torch.Generator().manual_seed(0)
    priors, classes = len(detector.priors), detector.spec.classes
    logits = torch.randn(batch, priors, classes + 1, generator=generator)
    logits[..., 0] += 9
    hit = torch.rand(batch, priors, generator=generator) < 0.01
    label = torch.randint(1, classes + 1, (int(hit.sum()),), generator=generator)
    image, prior = hit.nonzero(as_tuple=True)
    logits[image, prior, label] += 9
    offsets = torch.randn(batch, priors, 4, generator=generator) * 0.3
    return logits.to(detector.priors.device), offsets.to(detector.priors.device)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.benchmark(group="network")
def test_network(benchmark: BenchmarkFixture, detector: SSD, images: Tensor, device: torch.device, batch: int) -> None:
    benchmark.extra_info |= device_description(device) | {"batch": batch}
    with torch.inference_mode():
        call = timed_call(lambda: detector(images[:batch]), device)
        benchmark.pedantic(call, rounds=ROUNDS, warmup_rounds=2, iterations=1)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.benchmark(group="final boxes")
def test_final_boxes(benchmark: BenchmarkFixture, detector: SSD, device: torch.device, batch: int) -> None:
    logits, offsets = outputs_of_a_trained_network(detector, batch)
    with torch.inference_mode():
        found = detect(detector.spec, logits, offsets, detector.priors)
        assert len(found.scores) > 10 * batch
        benchmark.extra_info |= device_description(device) | {"batch": batch, "boxes": len(found.scores)}
        call = timed_call(lambda: detect(detector.spec, logits, offsets, detector.priors), device)
        benchmark.pedantic(call, rounds=ROUNDS, warmup_rounds=2, iterations=1)


@pytest.mark.benchmark(group="as in a record")
def test_inference_as_the_matrix_measures_it(
    benchmark: BenchmarkFixture, detector: SSD, images: Tensor, device: torch.device
) -> None:
    settings = SpeedSettings.quick()
    speed = benchmark.pedantic(
        measure_inference, args=(detector.detect, images, settings), rounds=1, warmup_rounds=0, iterations=1
    )
    benchmark.extra_info |= device_description(device) | speed
    assert speed["sweep"][0]["batch"] == 1


def made_split(*, images: int, classes: int, each: int) -> tuple[ImageIndex, Detections]:
    """Eight boxes an image; of its `each` detections a third are a ground truth moved by some pixels."""
    rng = np.random.default_rng(0)
    extent = np.exp(rng.uniform(np.log(10), np.log(200), (8 * images, 2)))
    corner = rng.uniform(0, 1, extent.shape) * (np.array([640, 480]) - extent)
    boxes = np.concatenate((corner, corner + extent), axis=1)
    flags = np.zeros(len(boxes), dtype=bool)
    unknown = np.full(len(boxes), -1, dtype=np.int8)
    index = ImageIndex(
        root=Path(),
        classes=tuple(f"class {label}" for label in range(classes)),
        category_ids=np.arange(1, classes + 1),
        files=tuple(f"{row}.jpg" for row in range(images)),
        image_ids=np.arange(1, images + 1),
        sizes=np.tile(np.array([640, 480], dtype=np.int32), (images, 1)),
        offsets=np.arange(images + 1) * 8,
        boxes=boxes,
        labels=rng.integers(0, classes, len(boxes)).astype(np.int32),
        areas=extent.prod(axis=1),
        crowd=flags,
        difficult=flags,
        truncated=unknown,
        occluded=unknown,
    )
    image = np.repeat(np.arange(images), each)
    near = image * 8 + rng.integers(0, 8, len(image))
    moved = boxes[near] + rng.normal(0, 6, (len(image), 4))
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    stray = rng.integers(0, classes, len(image))
    labels = np.where(rng.random(len(image)) < 1 / 3, index.labels[near], stray)
    detections = Detections(
        image=image,
        boxes=moved.astype(np.float32),
        scores=rng.random(len(image)).astype(np.float32),
        labels=labels.astype(np.int32),
    )
    return index, detections


@pytest.mark.benchmark(group="evaluation")
def test_evaluation_of_400_images_of_25_classes(benchmark: BenchmarkFixture) -> None:
    index, detections = made_split(images=400, classes=25, each=200)
    benchmark.extra_info["detections"] = len(detections.scores)
    evaluation = benchmark.pedantic(evaluate, args=(index, detections), rounds=3, iterations=1)
    assert evaluation.accuracy["AP"] > 0


@pytest.mark.benchmark(group="evaluation")
def test_a_hundred_bootstrap_replicates(benchmark: BenchmarkFixture) -> None:
    index, detections = made_split(images=400, classes=25, each=200)
    evaluation = evaluate(index, replace(detections))
    drawn = np.random.default_rng(0).multinomial(400, np.full(400, 1 / 400), size=100).astype(np.float64)
    ap = benchmark.pedantic(
        average_precision, args=(evaluation.matches, drawn), rounds=ROUNDS, warmup_rounds=1, iterations=1
    )
    assert ap.shape == (100, 25, 10)
