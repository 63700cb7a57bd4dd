"""Steps over the schedule train the parts that the schedule opens, and their rows say so."""

from __future__ import annotations

from pathlib import Path

import torch

from bench.data.targets import Targets
from bench.spec import Numerics
from bench.speed.interleaved import Budget
from bench.speed.training_steps import measure_training_steps
from tests.tiny import specification, weights_file
from variants.unfreezing import Unfreezing

NUMERICS = Numerics(device="cpu", precision="float32", threads=2)


def test_a_row_for_each_schedule_and_share(tmp_path: Path) -> None:
    base = specification(str(weights_file(tmp_path / "tiny.pth")))
    schedules = {"baseline": base, "unfreezing": Unfreezing().apply(base, {})}
    boxes = torch.tensor([[[0.2, 0.2, 0.6, 0.6]]])
    targets = Targets(boxes, torch.ones(1, 1, dtype=torch.long), torch.zeros(1, 1, dtype=torch.bool))
    budget = Budget(seconds=0.0, warmup=0, fewest=2)
    rows = measure_training_steps(schedules, torch.zeros(1, 3, 300, 300), targets, numerics=[NUMERICS], budget=budget)
    by_place = {(row["schedule"], row["share"]): row for row in rows}
    assert list(by_place) == [(name, share) for name in schedules for share in (0.0, 0.2, 0.4)]
    assert by_place["unfreezing", 0.0]["trainable_stages"] == 0
    trained = [by_place["unfreezing", share]["trainable_M"] for share in (0.0, 0.2, 0.4)]
    assert trained == sorted(set(trained))
    assert {by_place["baseline", share]["trainable_M"] for share in (0.0, 0.2, 0.4)} == {trained[-1]}
    for row in rows:
        assert row["times_faster_low"] <= row["times_faster"] <= row["times_faster_high"]
        assert (row["samples"], row["rounds"], row["batch"]) == (2, 2, 1)
        if row["share"] == 0.4:
            assert row["times_faster"] == 1.0
