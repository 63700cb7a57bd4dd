"""The training loop: resuming, freezing, learning rates, micro-batches and NaN."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.axis import derive, find_axes
from bench.data.batches import TrainingBatches
from bench.data.targets import Targets
from bench.detector.loss import Loss
from bench.detector.ssd import SSD
from bench.training.checkpoints import read_checkpoint
from bench.training.trainer import NotFinite, Trainer
from tests import tiny
from tests.training.oracles import Interrupted, train

pytestmark = pytest.mark.usefixtures("either_way")
AXES = find_axes("variants")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.weights_file(tmp_path_factory.mktemp("weights") / "tiny.pth"))


@pytest.mark.parametrize("active", [(), *((name,) for name in AXES)], ids=lambda active: "+".join(active) or "baseline")
def test_a_resumed_training_equals_an_uninterrupted_one(active: tuple[str, ...], weights: str, tmp_path: Path) -> None:
    base = tiny.specification(weights)
    base = replace(base, training=replace(base.training, steps=6, batch=2, checkpoints=3, frozen_stride=0))
    index, _ = tiny.rectangles(6, empty=(2,))
    spec, _ = derive(base, [AXES[name].axis for name in active], index)
    whole, _ = train(spec, tmp_path / "whole.pt")
    with pytest.raises(Interrupted):
        train(spec, tmp_path / "broken.pt", stop_at=5)
    resumed, trained = train(spec, tmp_path / "broken.pt")
    assert trained.resumed_from == 4
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_on_cuda_does_not_synchronise(weights: str) -> None:
    spec = tiny.specification(weights)
    numerics = replace(tiny.NUMERICS, device="cuda")
    trainer = Trainer(SSD(spec.detector, seed=0).to("cuda").train(), spec.training, numerics)
    images = torch.rand(2, 3, 300, 300, device="cuda")
    boxes = torch.tensor([[[0.1, 0.2, 0.4, 0.7], [0.0, 0.0, 0.0, 0.0]]]).expand(2, -1, -1)
    targets = Targets(boxes, torch.tensor([[1, 0]] * 2), torch.zeros(2, 2, dtype=torch.bool)).to("cuda")
    trainer.step(0, images, targets)  # creates the optimiser's state and lets cuDNN choose its algorithms
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = trainer.step(1, images, targets)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(loss.total)


def test_only_trainable_stages_change(weights: str, tmp_path: Path) -> None:
    base = tiny.specification(weights)
    base = replace(base, training=replace(base.training, steps=5, batch=2, frozen_stride=4, weight_decay=0.5))
    spec, _ = derive(base, [AXES["unfreezing"].axis], tiny.rectangles()[0])
    before = SSD(spec.detector, seed=0)
    only_heads, _ = train(
        replace(spec, training=replace(spec.training, phases=spec.training.phases[:1])), tmp_path / "a"
    )
    everything, _ = train(spec, tmp_path / "b")
    stages = [model.backbone.stages() for model in (before, only_heads, everything)]
    for first, *others in zip(*stages, strict=True):
        for stage, moves in zip(others, (False, first.stride > 4), strict=True):
            pairs = zip(
                [p for m in first.modules for p in m.parameters()],
                [p for m in stage.modules for p in m.parameters()],
                strict=True,
            )
            assert all(torch.equal(a, b) != moves for a, b in pairs), (first.stride, moves)
    assert not torch.equal(before.class_heads[0].weight, only_heads.class_heads[0].weight)  # type: ignore[arg-type]


def test_frozen_stages_have_no_backward_pass(weights: str) -> None:
    spec = tiny.specification(weights)
    model = SSD(spec.detector, seed=0)
    trainer = Trainer(model, replace(spec.training, frozen_stride=32), tiny.NUMERICS)
    trainer.set_step(0)
    assert all(not level.requires_grad for level in model.backbone(torch.zeros(1, 3, 300, 300)))


def test_a_nan_loss_stops_the_training(weights: str, tmp_path: Path) -> None:
    base = tiny.specification(weights)
    training = replace(base.training, steps=8, batch=2, rate=1e30, warmup_share=0.0, clip_norm=0.0, optimiser="sgd")
    with pytest.raises(NotFinite, match="at step"):
        train(replace(base, training=training), tmp_path / "checkpoint.pt")


def test_a_checkpoint_with_other_priors_is_refused(weights: str, tmp_path: Path) -> None:
    base = tiny.specification(weights)
    base = replace(base, training=replace(base.training, steps=2, batch=2))
    train(base, tmp_path / "checkpoint.pt")
    shapes = tuple(tuple((w * 0.9, h) for w, h in level) for level in base.detector.priors)
    other = replace(base, detector=replace(base.detector, priors=shapes))
    with pytest.raises(ValueError, match="other priors"):
        train(other, tmp_path / "checkpoint.pt")


def test_the_optimiser_has_all_parameters_that_are_trained_at_some_step(weights: str) -> None:
    spec, _ = derive(tiny.specification(weights), [AXES["unfreezing"].axis], tiny.rectangles()[0])
    model = SSD(spec.detector, seed=0)
    trainer = Trainer(model, spec.training, tiny.NUMERICS)
    optimised = [id(value) for group in trainer.optimiser.param_groups for value in group["params"]]
    assert len(optimised) == len(set(optimised))
    trainer.set_step(spec.training.steps - 1)
    assert set(optimised) == {id(value) for value in model.parameters() if value.requires_grad}
    trainer.set_step(0)
    frozen = {id(p) for p in model.backbone.parameters()}
    assert {id(value) for value in model.parameters() if value.requires_grad} == set(optimised) - frozen


def test_learning_rates_follow_the_schedule_and_biases_train_as_in_caffe(weights: str) -> None:
    spec = tiny.specification(weights)
    training = replace(spec.training, rate=0.5, backbone_rate=0.1, bias_rate=2.0, warmup_share=0.0, decay_start=1.0)
    model = SSD(spec.detector, seed=0)
    trainer = Trainer(model, training, tiny.NUMERICS)
    trainer.set_step(3)
    head = model.class_heads[0]
    rates = {id(value): (g["lr"], g["weight_decay"]) for g in trainer.optimiser.param_groups for value in g["params"]}
    assert rates[id(head.weight)] == (0.5, training.weight_decay)
    assert rates[id(head.bias)] == (1.0, 0.0)
    top = next(model.backbone.stages()[-1].modules[0].parameters())
    assert rates[id(top)] == (pytest.approx(0.05), training.weight_decay)


def test_a_step_leaves_no_gradients(weights: str) -> None:
    # Zeros would move frozen weights by momentum and weight decay
    index, pixels = tiny.rectangles(4)
    spec = tiny.specification(weights)
    model = SSD(spec.detector, seed=0)
    trainer = Trainer(model, spec.training, tiny.NUMERICS)
    batches = TrainingBatches(
        index, pixels, spec.training.augment, seed=0, batch=2, size=300, fill=(127.0, 127.0, 127.0), workers=1
    )
    images, targets = next(batches.steps(0, 1))
    loss = trainer.step(0, images, targets)
    assert float(loss.total) == pytest.approx(float(loss.boxes + loss.classes))
    assert all(value.grad is None for value in model.parameters())


@pytest.mark.parametrize("micro_batches", [2, 3, 8])
def test_micro_batches_give_the_gradients_of_the_batch(weights: str, micro_batches: int) -> None:
    """Losses are divided by the matched priors of the whole batch; means would weight images unequally."""
    index, pixels = tiny.rectangles(5, empty=(1,))
    spec = tiny.specification(weights)
    # AdamW would turn the rounding of a gradient near zero into a full step
    training = replace(spec.training, frozen_stride=0, optimiser="sgd", clip_norm=0.0, rate=1.0)
    batches = TrainingBatches(
        index, pixels, training.augment, seed=0, batch=5, size=300, fill=(127.0, 127.0, 127.0), workers=1
    )
    images, targets = next(batches.steps(0, 1))
    results = []
    for numerics in (tiny.NUMERICS, replace(tiny.NUMERICS, micro_batches=micro_batches)):
        trainer = Trainer(SSD(spec.detector, seed=0), training, numerics)
        before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
        loss = trainer.step(training.steps // 2, images, targets)
        results.append((loss, {n: value.detach() - before[n] for n, value in trainer.model.named_parameters()}))
    (whole, expected), (loss, found) = results
    for one, other in ((whole.total, loss.total), (whole.boxes, loss.boxes), (whole.classes, loss.classes)):
        assert float(other) == pytest.approx(float(one), rel=1e-5)
    largest = max(
        float((found[name] - moved).abs().max() / moved.abs().max()) for name, moved in expected.items() if moved.any()
    )
    print(f"{micro_batches} micro-batches: updates differ by {largest:.1e} of the largest of their tensor")
    assert largest < 1e-3


def test_a_nan_loss_is_never_checkpointed(weights: str, tmp_path: Path) -> None:
    base = tiny.specification(weights)
    training = replace(base.training, steps=8, batch=2, rate=1e30, warmup_share=0.0, clip_norm=0.0, optimiser="sgd")
    with pytest.raises(NotFinite) as raised:
        train(replace(base, training=replace(training, checkpoints=8)), tmp_path / "checkpoint.pt")
    failed_at = int(str(raised.value).split("at step ")[1].split()[0])
    assert read_checkpoint(tmp_path / "checkpoint.pt", "cpu")["step"] == failed_at - 1


def test_infinite_weights_are_never_checkpointed(weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of a step is computed before its update, so after the last step the weights must be checked."""
    step = Trainer.step

    def poisoned_step(trainer: Trainer, number: int, *given: Any) -> Loss:
        loss = step(trainer, number, *given)
        if number == 3:
            next(trainer.model.class_heads.parameters()).data[0] = float("inf")
        return loss

    monkeypatch.setattr(Trainer, "step", poisoned_step)
    base = tiny.specification(weights)
    with pytest.raises(NotFinite, match="weights are not finite after step 4 of 4"):
        train(replace(base, training=replace(base.training, steps=4, batch=2, checkpoints=4)), tmp_path / "a.pt")
    assert read_checkpoint(tmp_path / "a.pt", "cpu")["step"] == 3
