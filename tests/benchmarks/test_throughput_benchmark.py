"""Speed of the detector: stages of inference, and comparison with torchvision.

Not run with the other tests. To run them, and to compare with an earlier run on the same machine:

    pytest tests/benchmarks -o addopts= --benchmark-only --benchmark-autosave
    pytest tests/benchmarks -o addopts= --benchmark-only --benchmark-compare

Heads are random: the network takes the same time with any weights, and post-processing gets synthetic outputs with
about as many objects as a photograph. The records of a run have the speed with trained weights on real images.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from bench.data.pixels import DecodedOnDemand
from bench.data.targets import Targets
from bench.detector.prior_presets import preset_shapes
from bench.detector.ssd import SSD
from bench.device import fast_paths
from bench.device.clock import timed_call
from bench.device.hardware import device_description
from bench.spec import Numerics
from bench.speed.comparison import Work, measure_comparison
from bench.speed.inference import SpeedSettings, measure_inference
from bench.speed.interleaved import Budget
from bench.speed.measurements import suppress_detections
from bench.speed.stages import STAGES, Pictures, measure_stages, stage_calls, synthetic_outputs
from bench.training.setup import build, configure
from tests.index_builders import index_of
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
def numerics(device: torch.device) -> Iterator[Numerics]:
    """On a CPU with kernels, as in cells that train for long."""
    threads = torch.get_num_threads()
    numerics = Numerics(device=device.type, precision="float32", threads=threads, cpu_kernels=device.type == "cpu")
    configure(numerics)
    yield numerics
    fast_paths.enable(False)


@pytest.fixture(scope="module", params=["efficientnet_lite0", "vgg16"])
def detector(numerics: Numerics, request: pytest.FixtureRequest) -> SSD:
    backbone = request.param
    specification = baseline(
        classes=CLASSES,
        backbone=backbone,
        weights="none" if backbone == "vgg16" else "pretrained",
        weights_fingerprint="",
        priors=preset_shapes("coco"),
        training=training_of("smoke", 100, scenes=False),
    )
    return build(specification.detector, 0, numerics).eval()


@pytest.fixture
def images(detector: SSD, device: torch.device) -> Tensor:
    side = detector.spec.size
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, 256, (max(BATCHES), 3, side, side), dtype=torch.uint8, generator=generator)
    return drawn.to(device, memory_format=torch.channels_last)


@pytest.fixture
def pictures(images: Tensor, tmp_path: Path) -> Pictures:
    """The same pixels as JPEG files of a photograph's size."""
    rng = np.random.default_rng(0)
    index = index_of([[(0, 0.0, 0.0, 9.0, 9.0)]] * len(images), size=(640, 480), classes=CLASSES)
    for name in index.files:
        coarse = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC).save(tmp_path / name, quality=90)
    return Pictures(files=DecodedOnDemand(replace(index, root=tmp_path)), tensors=images)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.benchmark(group="stages of inference")
def test_stage(
    benchmark: BenchmarkFixture,
    detector: SSD,
    pictures: Pictures,
    device: torch.device,
    numerics: Numerics,
    *,
    stage: str,
    batch: int,
) -> None:
    """As in `run_all.py throughput`, with synthetic outputs for box decoding and NMS."""
    calls = stage_calls(detector, pictures, numerics=numerics, batch=batch, synthetic=True)
    benchmark.extra_info |= device_description(device) | {"batch": batch}
    benchmark.pedantic(timed_call(calls[stage], device), rounds=ROUNDS, warmup_rounds=2, iterations=1)


@pytest.mark.benchmark(group="stages interleaved")
def test_all_stages_interleaved(
    benchmark: BenchmarkFixture, detector: SSD, pictures: Pictures, device: torch.device, numerics: Numerics
) -> None:
    budget = Budget(seconds=5.0)
    rows = benchmark.pedantic(
        measure_stages,
        args=(detector, pictures),
        kwargs={"numerics": [numerics], "batches": BATCHES, "synthetic": True, "budget": budget},
        rounds=1,
        warmup_rounds=0,
        iterations=1,
    )
    benchmark.extra_info |= device_description(device) | {"rows": rows}
    assert {row["stage"] for row in rows} == set(STAGES)


@pytest.mark.benchmark(group="comparison with torchvision")
def test_comparison_with_torchvision(
    benchmark: BenchmarkFixture, detector: SSD, images: Tensor, device: torch.device, numerics: Numerics
) -> None:
    count = len(images)
    boxes = torch.tensor([0.2, 0.2, 0.6, 0.6], device=device).expand(count, 1, 4).contiguous()
    labels = torch.ones(count, 1, dtype=torch.long, device=device)
    targets = Targets(boxes, labels, torch.zeros_like(labels, dtype=torch.bool))
    outputs = synthetic_outputs(detector.spec, detector.priors, count)
    detector = copy.deepcopy(detector)
    suppress_detections(detector)
    comparison = benchmark.pedantic(
        measure_comparison,
        args=(
            detector,
            Work(images=images, train_images=images.float(), targets=targets, outputs=outputs),
            training_of("smoke", 100, scenes=False),
        ),
        kwargs={
            "numerics": [numerics],
            "batches": BATCHES,
            "budget": Budget(seconds=5.0),
        },
        rounds=1,
        warmup_rounds=0,
        iterations=1,
    )
    benchmark.extra_info |= device_description(device) | {"rows": comparison["rows"], "ceiling": comparison["ceiling"]}


@pytest.mark.usefixtures("numerics")
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
