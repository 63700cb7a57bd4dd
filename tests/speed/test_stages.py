"""Each stage of inference takes the time of its parts, on files and tensors of the same pictures."""

from __future__ import annotations

import json
import time

import pytest
import torch
from torch import Tensor

from bench.detector.postprocess import BatchDetections, detect
from bench.detector.priors import prior_boxes
from bench.detector.ssd import SSD
from bench.spec import DetectorSpec, Numerics
from bench.speed.interleaved import Budget
from bench.speed.stages import (
    BOXES,
    DECODE,
    END_TO_END,
    NETWORK,
    STAGES,
    TENSORS_TO_BOXES,
    Pictures,
    measure_stages,
    own_outputs,
    stage_calls,
    synthetic_outputs,
)
from tests.tiny import Pixels, rectangles, specification

NUMERICS = Numerics(device="cpu", precision="float32", threads=2)
FILE_SECONDS, NETWORK_SECONDS = 0.01, 0.03


class SlowFiles(Pixels):
    """Pictures that take a known time to decode."""

    def __getitem__(self, row: int):  # type: ignore[no-untyped-def]
        time.sleep(FILE_SECONDS)
        return super().__getitem__(row)


class Sleeper:
    """A detector of known speed that outputs only background."""

    def __init__(self, spec: DetectorSpec) -> None:
        self.spec, self.priors = spec, prior_boxes(spec)
        self.seen: list[Tensor] = []

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        time.sleep(NETWORK_SECONDS)
        self.seen.append(images)
        logits = torch.zeros(len(images), len(self.priors), self.spec.classes + 1)
        logits[..., 0] = 9
        return logits, torch.zeros(len(images), len(self.priors), 4)

    def detect(self, images: Tensor) -> BatchDetections:
        return detect(self.spec, *self(images), self.priors)


def pictures() -> Pictures:
    _, pixels = rectangles(3)
    return Pictures(files=SlowFiles(pixels.pictures), tensors=torch.zeros(3, 3, 300, 300, dtype=torch.uint8))


def test_each_stage_takes_what_its_parts_take() -> None:
    """A sleep is a lower bound: a stage that skipped its part would be faster."""
    budget = Budget(seconds=0.0, warmup=0)
    rows = measure_stages(
        Sleeper(specification().detector),
        pictures(),
        numerics=[NUMERICS],
        batches=(1, 2),
        synthetic=False,
        budget=budget,
    )
    assert [(row["stage"], row["batch"]) for row in rows] == [(stage, batch) for stage in STAGES for batch in (1, 2)]
    least = {
        DECODE: FILE_SECONDS,
        NETWORK: NETWORK_SECONDS,
        BOXES: 0.0,
        TENSORS_TO_BOXES: NETWORK_SECONDS,
        END_TO_END: FILE_SECONDS + NETWORK_SECONDS,
    }
    for row in rows:
        assert row["samples"] == 5 * (2 // row["batch"])
        assert row["p99_ms"] >= row["p90_ms"] >= row["p50_ms"] >= 1000 * least[row["stage"]]
        assert row["images_per_second"] == pytest.approx(1000 * row["batch"] / row["p50_ms"])
        assert (row["workers"] is None) == (row["stage"] not in (DECODE, END_TO_END))
        assert (row["precision"] is None) == (row["stage"] == DECODE)
    json.dumps(rows, allow_nan=False)


def test_files_reach_the_network_as_in_evaluation() -> None:
    from bench.data.warp import whole_images  # noqa: PLC0415

    model = Sleeper(specification().detector)
    shown = pictures()
    calls = stage_calls(model, shown, numerics=NUMERICS, batch=2, synthetic=True)
    calls[END_TO_END]()
    calls[END_TO_END]()
    expected = whole_images(shown.files, [0, 1, 2, 0], 300, workers=1)
    assert torch.equal(torch.cat(model.seen[-2:]), expected)


def test_stages_of_the_detector_in_both_precisions() -> None:
    model = SSD(specification().detector, seed=0).eval()
    lower = Numerics(device="cpu", precision="bfloat16", threads=2)
    rows = measure_stages(
        model,
        Pictures(files=rectangles(2)[1], tensors=torch.zeros(2, 3, 300, 300, dtype=torch.uint8)),
        numerics=[NUMERICS, lower],
        batches=(1,),
        synthetic=True,
        budget=Budget(seconds=0.0, warmup=1, fewest=1),
    )
    assert {(row["stage"], row["precision"]) for row in rows} == {(DECODE, None)} | {
        (stage, precision) for stage in STAGES[1:] for precision in ("float32", "bfloat16")
    }
    logits = own_outputs(model, torch.zeros(1, 3, 300, 300), lower)[0]
    assert logits.dtype == torch.float32  # in which post-processing computes
    assert torch.equal(logits, logits.bfloat16().float())


def test_in_synthetic_outputs_about_one_prior_in_a_hundred_is_an_object() -> None:
    spec = specification(classes=20).detector
    priors = prior_boxes(spec)
    logits, offsets = synthetic_outputs(spec, priors, 2)
    assert logits.shape == (2, len(priors), 21)
    assert offsets.shape == (2, len(priors), 4)
    objects = (logits.softmax(dim=-1)[..., 1:].amax(dim=-1) > 0.1).float().mean()
    assert 0.008 < objects < 0.02
