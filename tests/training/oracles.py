"""A small training that a test may interrupt."""

from __future__ import annotations

from pathlib import Path

from bench.data.batches import TrainingBatches
from bench.detector.ssd import SSD
from bench.spec import Specification
from bench.training.trainer import Progress, Trained, Trainer
from tests import tiny


class Interrupted(Exception):
    """Raised by a test during a training."""


def train(spec: Specification, checkpoint: Path, *, stop_at: int | None = None) -> tuple[SSD, Trained]:
    """Train on six images, one of them empty; raise Interrupted after step `stop_at`."""
    index, pixels = tiny.rectangles(6, empty=(2,))
    model = SSD(spec.detector, seed=0)
    batches = TrainingBatches(
        index,
        pixels,
        spec.training.augment,
        seed=0,
        batch=2,
        size=spec.detector.size,
        fill=(127.0, 127.0, 127.0),
        workers=2,
    )

    def report(progress: Progress) -> None:
        if progress.step == stop_at:
            raise Interrupted

    return model, Trainer(model, spec.training, tiny.NUMERICS).run(batches, checkpoint, report=report)
