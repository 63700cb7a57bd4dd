"""A damaged checkpoint is detected, and the previous one is used."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.detector.ssd import SSD
from bench.spec import Specification
from bench.storage.atomic import remove_abandoned, replacing
from bench.storage.cell_log import CellLog
from bench.storage.records import read_log
from bench.storage.run_folder import previous_of
from bench.training.checkpoints import (
    DamagedCheckpoint,
    latest_checkpoint,
    read_checkpoint,
    remove_checkpoints,
    write_checkpoint,
)
from bench.training.trainer import Trainer, checkpoint_interval
from tests import tiny
from tests.training.oracles import Interrupted, train
from variants.baseline import training_of


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of step 20, and the previous one of step 10."""
    path = tmp_path / "checkpoint.pt"
    for step in (10, 20):
        write_checkpoint(path, {"step": step, "model": {"weight": torch.full((50,), float(step))}})
    return path


def test_the_latest_checkpoint_is_read_and_the_previous_one_is_kept(checkpoint: Path) -> None:
    content = read_checkpoint(checkpoint, "cpu")
    assert content["step"] == 20
    assert torch.equal(content["model"]["weight"], torch.full((50,), 20.0))
    assert read_checkpoint(previous_of(checkpoint), "cpu")["step"] == 10
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["checkpoint.previous.pt", "checkpoint.pt"]
    remove_checkpoints(checkpoint)
    assert list(checkpoint.parent.iterdir()) == []


@pytest.mark.parametrize("length", [0, 1, 30, 100, 200, -1], ids=lambda length: f"cut at {length}")
def test_a_truncated_checkpoint_is_named_and_the_previous_one_used(checkpoint: Path, length: int) -> None:
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[:length])
    with pytest.raises(DamagedCheckpoint):
        read_checkpoint(checkpoint, "cpu")
    content, (warning,) = latest_checkpoint(checkpoint, "cpu")
    assert content is not None
    assert content["step"] == 10
    assert warning.startswith("checkpoint.pt is damaged")
    assert warning.endswith("resumed from step 10 instead")


@pytest.mark.parametrize("part", [0.0, 0.05, 0.3, 0.6, 0.999])
def test_a_flipped_bit_is_detected(checkpoint: Path, part: float) -> None:
    data = bytearray(checkpoint.read_bytes())
    data[int(part * len(data))] ^= 1
    checkpoint.write_bytes(data)
    content, warnings = latest_checkpoint(checkpoint, "cpu")
    assert content is not None
    assert content["step"] == 10
    assert len(warnings) == 1


def test_with_both_damaged_training_restarts_with_a_warning(checkpoint: Path) -> None:
    for path in (checkpoint, previous_of(checkpoint)):
        path.write_bytes(path.read_bytes()[:150])
    content, warnings = latest_checkpoint(checkpoint, "cpu")
    assert content is None
    assert len(warnings) == 2
    assert all("training started again" in warning for warning in warnings)


def test_a_kill_between_the_two_renames_leaves_the_previous_one(checkpoint: Path) -> None:
    checkpoint.replace(previous_of(checkpoint))
    content, warnings = latest_checkpoint(checkpoint, "cpu")
    assert content is not None
    assert (content["step"], warnings) == (20, [])


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (tmp_path / "executed",)

    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, {"step": 1, "model": Malicious()})
    with pytest.raises(Exception, match=r"[Ww]eights"):
        read_checkpoint(path, "cpu")
    assert not (tmp_path / "executed").exists()


def test_training_resumed_from_the_previous_one_ends_with_the_same_bits(tmp_path: Path) -> None:
    base = tiny.specification()
    spec = replace(base, training=replace(base.training, steps=6, batch=2, checkpoints=3))
    whole, _ = train(spec, tmp_path / "whole.pt")
    path = tmp_path / "broken.pt"
    with pytest.raises(Interrupted):
        train(spec, path, stop_at=5)
    path.write_bytes(path.read_bytes()[:-7])
    resumed, trained = train(spec, path)
    assert trained.resumed_from == 2
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_caller_learns_of_the_damage(tmp_path: Path) -> None:
    spec = tiny.specification()
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"text")
    told: list[tuple[int, list[str]]] = []

    class NoBatches:
        def steps(self, first: int, last: int) -> object:
            raise Interrupted

    trainer = Trainer(SSD(spec.detector, seed=0), spec.training, tiny.NUMERICS)
    with pytest.raises(Interrupted):
        trainer.run(
            NoBatches(),  # type: ignore[arg-type]
            path,
            report=lambda progress: None,
            resumed=lambda step, damaged: told.append((step, damaged)),
        )
    ((step, damaged),) = told
    assert step == 0
    assert "checkpoint.pt is damaged" in damaged[0]


@pytest.mark.parametrize("profile", ["smoke", "quick", "standard", "paper"])
@pytest.mark.parametrize("images", [1, 100, 1357, 118_287])
def test_an_interruption_costs_at_most_a_tenth_of_the_steps(profile: str, images: int) -> None:
    training = training_of(profile, images, scenes=False)
    for steps in (training.steps, 2 * training.steps, 4, 11, 95, 199):
        assert checkpoint_interval(replace(training, steps=steps)) <= max(1, steps / 10)


def test_training_writes_checkpoints_at_the_interval(tmp_path: Path) -> None:
    base = tiny.specification()
    spec: Specification = replace(base, training=replace(base.training, steps=7, batch=1, checkpoints=3))
    assert checkpoint_interval(spec.training) == 2
    with pytest.raises(Interrupted):
        train(spec, tmp_path / "checkpoint.pt", stop_at=7)
    assert read_checkpoint(tmp_path / "checkpoint.pt", "cpu")["step"] == 6
    assert read_checkpoint(tmp_path / "checkpoint.previous.pt", "cpu")["step"] == 4


def test_only_temporary_files_of_killed_writers_are_removed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "record.json"):
        (left,) = tmp_path.iterdir()
        (tmp_path / "copy").write_bytes(b"half")
        raise KeyboardInterrupt
    (tmp_path / "copy").rename(left)  # what a kill leaves, since no `finally` runs
    kept = [".hidden", ".gitignore", ".notes.2026", "record.json", "x.1"]
    for name in kept:
        (tmp_path / name).touch()
    remove_abandoned(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_a_torn_line_of_the_log_does_not_spoil_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    CellLog(path).write(step=1)
    with path.open("a") as file:
        file.write('{"step": 2, "lo')
    log = CellLog(path)
    log.write(step=3)
    assert [line["step"] for line in read_log(path)] == [1, 3]
    log.cut_after(1)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"step": 1}]
