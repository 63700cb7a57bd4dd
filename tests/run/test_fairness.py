"""All arms of a seed share order, inputs and initial weights, and use nothing of the validation data.

Every arm is a cell on the real code path; only the training loop is exchanged for one that looks and stops.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.axis import derive, find_axes
from bench.data.batches import TrainingBatches
from bench.data.index import ImageIndex
from bench.detector.ssd import SSD
from bench.run import cell as room
from bench.run.cell import CellJob, run_cell
from bench.spec import Cell
from bench.speed.inference import SpeedSettings
from bench.training.trainer import Trainer
from tests import tiny
from variants.controls import CONTROLS

AXES = ("fpn", "anchors", "unfreezing")
ARMS = [tuple(name for name, on in zip(AXES, switches, strict=True) if on) for switches in product((0, 1), repeat=3)]


@dataclass
class Seen:
    """The inputs and the initial state of an arm's training."""

    inputs: list[str]  # hash of each step's images and targets
    weights: dict[str, torch.Tensor]
    priors: str


class Looked(Exception):
    """Ends a cell before its training."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.weights_file(tmp_path_factory.mktemp("weights") / "tiny.pth"))


@pytest.fixture
def look(weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Seen]:
    """Runs a cell up to its training and records the inputs."""
    index, pixels = tiny.rectangles(16)
    monkeypatch.setattr(room, "open_pixels", lambda _, rows: Rows(pixels, rows))
    found: list[Seen] = []

    def run(self: Trainer, batches: TrainingBatches, checkpoint: Path, **_: Any) -> None:
        steps = [*batches.steps(0, self.spec.steps)]
        inputs = [content_of(images, targets.boxes, targets.labels, targets.crowd) for images, targets in steps]
        state = {name: value.clone() for name, value in self.model.state_dict().items()}
        found.append(Seen(inputs, state, self.model.priors_fingerprint()))
        raise Looked

    monkeypatch.setattr(Trainer, "run", run)

    def call(
        active: tuple[str, ...], *, seed: int = 0, val: ImageIndex | None = None, control: str | None = None
    ) -> Seen:
        base = tiny.specification(weights)
        if control is not None:
            base = CONTROLS[control](base)
        files = find_axes("variants")
        cell = Cell(
            variant="+".join(active),
            factors=tuple((name, name in active) for name in AXES),
            control=control,
            seed=seed,
            base=base,
            numerics=tiny.NUMERICS,
            split="",
            axes=tuple((name, files[name].fingerprint) for name in active),
        )
        record = run_cell(
            CellJob(
                cell=cell,
                run=tmp_path,
                train=index.take(np.arange(10)),
                val=index.take(np.arange(10, 16)) if val is None else val,
                pixels=None,
                axis_files=(),
                speed=SpeedSettings.quick(),
            )
        )
        assert "Looked" in record["failure"]["cause"]
        return found.pop()

    return call


class Rows:
    """Images of the rows of an index, found by its file names."""

    def __init__(self, pixels: tiny.Pixels, index: ImageIndex) -> None:
        self.pixels, self.rows = pixels, [int(Path(file).stem) for file in index.files]

    def __getitem__(self, row: int) -> Any:
        return self.pixels[self.rows[row]]


def content_of(*tensors: torch.Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def shared(one: Seen, other: Seen) -> list[str]:
    return [
        name
        for name, value in one.weights.items()
        if name in other.weights and other.weights[name].shape == value.shape
    ]


def test_all_arms_of_a_seed_have_the_same_inputs_and_initial_weights(look: Callable[..., Seen]) -> None:
    baseline = look(())
    assert len(set(baseline.inputs)) == len(baseline.inputs) > 4
    counts = []
    for active in ARMS[1:]:
        arm = look(active)
        assert arm.inputs == baseline.inputs, active
        names = shared(baseline, arm)
        assert any(name.startswith("backbone.") for name in names)
        assert all(torch.equal(baseline.weights[name], arm.weights[name]) for name in names), active
        counts.append(len(names))
    lateral = look((), control="lateral-only")
    assert lateral.inputs == baseline.inputs
    assert all(torch.equal(baseline.weights[name], lateral.weights[name]) for name in shared(baseline, lateral))
    print(f"{len(ARMS)} arms: {len(baseline.inputs)} equal batches, {min(counts)} to {max(counts)} equal tensors")


def test_another_seed_has_other_inputs_and_initial_weights(look: Callable[..., Seen]) -> None:
    """Otherwise the test above would pass if the seed were ignored."""
    one, other = look(()), look((), seed=1)
    assert not set(one.inputs) & set(other.inputs)
    new = [name for name in one.weights if name.startswith("class_heads.") and name.endswith("weight")]
    assert all(not torch.equal(one.weights[name], other.weights[name]) for name in new)


def test_with_the_axis_off_everything_equals_the_baseline(weights: str) -> None:
    base = tiny.specification(weights)
    axes = find_axes("variants")
    index, _ = tiny.rectangles(60)  # enough for anchors to be fitted
    off, prepared = derive(base, [], index)
    assert off == base
    assert prepared == {}
    # Deriving an arm leaves the baseline as it was
    for name in AXES:
        on, _ = derive(base, [axes[name].axis], index)
        assert on != base
        again, _ = derive(base, [], index)
        assert again == base
    one, two = (SSD(spec.detector, seed=0).state_dict() for spec in (base, off))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("active", ARMS, ids="+".join)
def test_other_validation_data_do_not_change_training(active: tuple[str, ...], look: Callable[..., Seen]) -> None:
    """With other images and boxes, all weights, priors and batches stay the same."""
    other, _ = tiny.rectangles(16, seed=9)
    val = other.take(np.arange(10, 16))
    val = replace(val, boxes=val.boxes * np.array([0.2, 1.0, 0.2, 1.0]))  # all narrow
    one, two = look(active), look(active, val=val)
    assert one.inputs == two.inputs
    assert one.priors == two.priors
    assert all(torch.equal(one.weights[name], two.weights[name]) for name in one.weights)


def test_an_axis_cannot_reach_validation_images() -> None:
    """Its index has no file, id or box of the validation split, nor views into their memory."""
    index, _ = tiny.rectangles(16)
    train, val = index.take(np.arange(10)), index.take(np.arange(10, 16))
    assert not set(train.files) & set(val.files)
    assert not set(train.image_ids.tolist()) & set(val.image_ids.tolist())
    for name in ("boxes", "labels", "areas", "sizes", "image_ids", "crowd"):
        own = getattr(train, name)
        assert not np.shares_memory(own, getattr(index, name)), name
        assert own.base is None or len(own.base) == len(own), name
