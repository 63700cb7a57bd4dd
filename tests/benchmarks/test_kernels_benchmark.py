"""What each CPU kernel, all of them together, and the settings of the process earn, in paired rounds.

Not run with the other tests; every row prints its ratio with a 95% interval:

    pytest tests/benchmarks/test_kernels_benchmark.py -o addopts= --benchmark-only -s
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.cpu.layers import FusedBlock
from bench.cpu.layout_cache import LayoutCache
from bench.cpu.winograd import WinogradConvolution
from bench.data.batches import TrainingBatches
from bench.data.targets import Targets
from bench.detector import postprocess
from bench.detector.prior_presets import preset_shapes
from bench.detector.ssd import SSD
from bench.device import fast_paths
from bench.device.clock import Timing
from bench.device.hardware import available_cores, computes_bfloat16
from bench.device.precision import autocast
from bench.evaluation.inference import detect_all
from bench.spec import DetectorSpec, Numerics, Specification
from bench.speed.child_process import in_child_process
from bench.speed.interleaved import Budget, Contender, measure_interleaved, paired_ratio
from bench.speed.stages import synthetic_outputs
from bench.training.setup import build, configure
from bench.training.setup import build as build_plain
from bench.training.trainer import Trainer
from tests import tiny
from variants.baseline import baseline, training_of

NUMERICS = Numerics(
    device="cpu",
    precision="bfloat16" if computes_bfloat16("cpu") else "float32",
    threads=available_cores(),
    cpu_kernels=True,
)
BUDGET = Budget(seconds=25, warmup=2)

# What runs instead of a kernel, by the name of the function that chooses the kernel
Patch = tuple[Any, str, Callable[..., Any]]
NO_OVERRIDES: Mapping[str, str] = {
    "suppression": "bench.detector.postprocess.suppress",
    "margins": "bench.detector.postprocess.margins",
    "photometric": "bench.data.augment.photometric",
}
PATCHES: Mapping[str, Sequence[Patch]] = {
    "depthwise": [("bench.cpu.layers", "kernel_applies", lambda *_: False)],
    "inverted residual block": [(FusedBlock, "fused", lambda *_: None)],
    "Winograd": [(WinogradConvolution, "_kernel_applies", lambda *_: False)],
    "layout cache": [(LayoutCache, "get", lambda _, build, *__: build())],
    "OpenMP threads": [("bench.cpu.threads", "openmp_library", lambda: None)],
}
ROWS: Mapping[str, Sequence[str]] = {
    "light step 16": ["depthwise", "inverted residual block", "layout cache", "OpenMP threads"],
    "light inference 16": ["depthwise", "inverted residual block", "suppression", "margins", "OpenMP threads"],
    "light inference 1": ["inverted residual block", "suppression", "margins", "layout cache", "OpenMP threads"],
    "post-processing 32": ["suppression", "margins", "OpenMP threads"],
    "batch 16": ["photometric"],
    "cell 16": ["depthwise", "inverted residual block", "layout cache", "suppression", "margins", "photometric"],
    "VGG16 step 8": ["Winograd"],
    "VGG16 inference 8": ["Winograd", "layout cache", "OpenMP threads"],
    "VGG16 inference 1": ["Winograd", "layout cache", "OpenMP threads"],
}


@contextmanager
def without(kernel: str) -> Iterator[None]:
    """Run plain code instead of one kernel, and every other kernel as usual."""
    with ExitStack() as stack:
        for target, name, plain in PATCHES.get(kernel, ()):
            place = f"{target}.{name}" if isinstance(target, str) else None
            stack.enter_context(mock.patch(place, plain) if place else mock.patch.object(target, name, plain))
        if kernel in NO_OVERRIDES:
            kept = {name: fast for name, fast in fast_paths._overrides.items() if name != NO_OVERRIDES[kernel]}
            stack.enter_context(mock.patch.object(fast_paths, "_overrides", kept))
        yield


def specification(backbone: str) -> Specification:
    return baseline(
        classes=20,
        backbone=backbone,
        weights="none" if backbone == "vgg16" else "pretrained",
        weights_fingerprint="",
        priors=preset_shapes("coco"),
        training=training_of("quick", 1000, scenes=False),
    )


def pictures(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, 256, (count, 3, 300, 300), generator=generator, dtype=torch.uint8)
    return drawn.contiguous(memory_format=torch.channels_last)


def step(backbone: str, batch: int) -> Callable[[], object]:
    spec = specification(backbone)
    spec = replace(spec, training=replace(spec.training, rate=1e-6))
    trainer = Trainer(build(spec.detector, 0, NUMERICS).train(), spec.training, NUMERICS)
    boxes = torch.tensor([[[0.2, 0.2, 0.6, 0.6], [0.5, 0.1, 0.9, 0.8]]]).repeat(batch, 1, 1)
    targets = Targets(boxes, torch.ones(batch, 2, dtype=torch.long), torch.zeros(batch, 2, dtype=torch.bool))
    images = pictures(batch).float()
    return lambda: trainer.step(spec.training.steps - 1, images, targets)


def inference(backbone: str, batch: int) -> Callable[[], object]:
    model: SSD = build(specification(backbone).detector, 0, NUMERICS).eval()
    images = pictures(batch)

    def call() -> object:
        with torch.inference_mode(), autocast(NUMERICS):
            return model.detect(images)

    return call


def postprocessing(images: int) -> Callable[[], object]:
    model = SSD(specification("efficientnet_lite0").detector, seed=0)
    outputs = synthetic_outputs(model.spec, model.priors, images)

    def call() -> object:
        with torch.inference_mode():
            return postprocess.detect(model.spec, *outputs, model.priors)

    return call


def preparation(batch: int) -> Callable[[], object]:
    rng = np.random.default_rng(0)
    index, _ = tiny.rectangles(batch)
    photographs = tiny.Pixels([rng.integers(0, 256, (480, 640, 3), dtype=np.uint8) for _ in range(batch)])
    augment = specification("efficientnet_lite0").training.augment
    batches = TrainingBatches(
        index, photographs, augment, seed=0, batch=batch, size=300, fill=(127.0, 127.0, 127.0), workers=1
    )
    return lambda: batches.collate([batches.sample(row, 0) for row in range(batch)])


def cell(batch: int) -> Callable[[], object]:
    """A miniature cell: four training steps from decoded images, then detection on 16 images."""
    spec = specification("efficientnet_lite0")
    trainer = Trainer(build(spec.detector, 0, NUMERICS), replace(spec.training, rate=1e-6), NUMERICS)
    rng = np.random.default_rng(0)
    index, _ = tiny.rectangles(4 * batch)
    photographs = tiny.Pixels([rng.integers(0, 256, (480, 640, 3), dtype=np.uint8) for _ in range(4 * batch)])
    val = index.take(np.arange(16))
    batches = TrainingBatches(
        index,
        photographs,
        spec.training.augment,
        seed=0,
        batch=batch,
        size=300,
        fill=(127.0, 127.0, 127.0),
        workers=NUMERICS.threads,
    )

    def call() -> object:
        trainer.model.train()
        for images, targets in batches.steps(0, 4):
            trainer.step(spec.training.steps - 1, images, targets)
        trainer.model.eval()
        return detect_all(trainer.model, val, photographs, NUMERICS)

    return call


MAKERS: Mapping[str, Callable[[int], Callable[[], object]]] = {
    "light step": partial(step, "efficientnet_lite0"),
    "light inference": partial(inference, "efficientnet_lite0"),
    "VGG16 step": partial(step, "vgg16"),
    "VGG16 inference": partial(inference, "vgg16"),
    "post-processing": postprocessing,
    "batch": preparation,
    "cell": cell,
}


def call_of(row: str) -> Callable[[], object]:
    """The call that a row times; the number at the end of its name is the batch."""
    name, _, batch = row.rpartition(" ")
    return MAKERS[name](int(batch))


@pytest.fixture(scope="module", autouse=True)
def process() -> Iterator[None]:
    threads = torch.get_num_threads()
    configure(NUMERICS)
    yield
    fast_paths.enable(False)
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("row", "kernel"), [(row, kernel) for row, kernels in ROWS.items() for kernel in kernels])
@pytest.mark.benchmark(group="kernels")
def test_kernel(row: str, kernel: str, benchmark: BenchmarkFixture) -> None:
    call = call_of(row)

    def plain() -> object:
        with without(kernel):
            return call()

    contenders = {"on": Contender(call=call, batch=1), "off": Contender(call=plain, batch=1)}

    compare(f"{row}, {kernel}", contenders, benchmark)


@pytest.mark.parametrize("row", ["light step 16", "light inference 16", "light inference 1"])
@pytest.mark.benchmark(group="all kernels")
def test_all_kernels_against_torch_compile(row: str, benchmark: BenchmarkFixture) -> None:
    """The network with kernels, without, and without as `torch.compile` makes it."""
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler, and there is no g++")
    call = call_of(row)
    with mock.patch(f"{__name__}.NUMERICS", replace(NUMERICS, cpu_kernels=False)):
        plain = call_of(row)
        with mock.patch(f"{__name__}.build", compiled):
            torch_compile = call_of(row)

    def without_kernels(call: Callable[[], object]) -> object:
        with fast_paths.disabled():
            return call()

    contenders = {
        "on": Contender(call=call, batch=1),
        "off": Contender(call=partial(without_kernels, plain), batch=1),
        "torch.compile": Contender(call=partial(without_kernels, torch_compile), batch=1),
    }
    compare(f"{row}, all kernels", contenders, benchmark)


def compiled(spec: DetectorSpec, seed: int, numerics: Numerics) -> SSD:
    """The plain detector with a compiled forward pass."""
    model = build_plain(spec, seed, numerics)
    model.forward = torch.compile(model.forward)  # type: ignore[method-assign]
    return model


@pytest.mark.parametrize("row", ["light step 16", "light inference 16", "light inference 1"])
@pytest.mark.benchmark(group="process settings")
def test_process_settings(row: str, benchmark: BenchmarkFixture) -> None:
    """glibc's memory settings and OpenMP's short spin, together and the first alone, against a user's process."""
    with (
        in_child_process(partial(contender, row, memory=False), threads=NUMERICS.threads) as off,
        in_child_process(partial(contender, row, memory=True), threads=NUMERICS.threads) as memory,
    ):
        contenders = {
            "on": Contender(call=call_of(row), batch=1),
            "off": off["call"],
            "memory alone": memory["call"],
        }
        compare(f"{row}, process settings", contenders, benchmark)


def contender(row: str, *, memory: bool) -> dict[str, Contender]:
    """The call of a row in a process that still has the user's settings of OpenMP. memory: set those of glibc."""
    if memory:
        configure(NUMERICS)
    else:
        with mock.patch("bench.training.setup.disable_malloc_trim", lambda: False):
            configure(NUMERICS)
    return {"call": Contender(call=call_of(row), batch=1)}


def compare(name: str, contenders: Mapping[str, Contender], benchmark: BenchmarkFixture) -> None:
    """Measure "on" and the others in turn; print how many times as fast "on" is as each of them."""

    def measure() -> dict[str, Timing]:
        return measure_interleaved(contenders, device=torch.device("cpu"), budget=BUDGET, reference=lambda _: "on")

    timings = benchmark.pedantic(measure, rounds=1, iterations=1)
    benchmark.extra_info.update({f"{key} ms": 1000 * timing.p50 for key, timing in timings.items()})
    for other in timings.keys() - {"on"}:
        ratio = paired_ratio(timings[other], timings["on"])
        benchmark.extra_info[other] = asdict(ratio)
        print(
            f"\n{name}: {1000 * timings['on'].p50:.1f} ms on, {1000 * timings[other].p50:.1f} ms {other}, "
            f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f}, n = {ratio.rounds})"
        )
        assert ratio.rounds >= BUDGET.fewest
