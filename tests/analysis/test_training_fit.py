"""Whether the loss was still falling, on logs whose truth is known, and what that and the gap in AP advise."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.analysis.run_records import load_run
from bench.analysis.training_fit import (
    COLUMNS,
    advice,
    fit_by_variant,
    loss_falls,
    still_falling,
    training_fit_frame,
)
from bench.spec import TrainSpec
from bench.training.schedule import rate_factor
from tests.report.made_run import matrix, write_run

DRAWS = 100
NOISE = 0.08  # of single batches; 0.06 to 0.09 in the reference run


def flat(share: np.ndarray, rate: np.ndarray) -> np.ndarray:
    return np.full(len(share), 3.0)


def falls_with_the_rate(share: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Flat at the peak rate, 15% lower at the end."""
    return np.asarray(3.0 * (0.85 + 0.15 * rate))


def falls(share: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """By about 13% at the peak rate and 15% in the last quarter, as in the reference run."""
    return np.asarray(5.0 * (0.2 + share) ** -0.3 * (0.9 + 0.1 * rate))


def share_still_falling(
    curve: Callable[[np.ndarray, np.ndarray], np.ndarray], *, steps: int, decay: str, draws: int = DRAWS
) -> float:
    """Of logs with noise around `curve` of the share of steps done and the share of the peak rate."""
    spec = TrainSpec(steps=steps, batch=16, optimiser="adamw", rate=1e-3, warmup_share=0.05, decay_start=0.7)
    if decay == "steps":
        spec = TrainSpec(
            steps=steps, batch=32, optimiser="sgd", rate=1e-3, warmup_share=0.0, decay="steps", drops=(2 / 3, 5 / 6)
        )
    step = np.arange(1, steps + 1)
    rate = np.array([rate_factor(spec, number - 1) for number in step.tolist()])
    truth = curve(step / steps, rate)
    draw = np.random.default_rng(steps)
    found = 0
    for _ in range(draws):
        loss = truth * (1 + NOISE * draw.standard_normal(steps))
        found += still_falling(*loss_falls(pd.DataFrame({"step": step, "loss": loss, "rate": rate}))) is True
    return found / draws


@pytest.mark.parametrize("decay", ["cosine", "steps"])
@pytest.mark.parametrize("steps", [40, 90, 500])
def test_a_flat_loss_is_rarely_called_falling(steps: int, decay: str) -> None:
    assert share_still_falling(flat, steps=steps, decay=decay) <= 0.02


@pytest.mark.parametrize("decay", ["cosine", "steps"])
@pytest.mark.parametrize("steps", [40, 90, 500])
def test_a_loss_that_falls_with_the_rate_alone_is_rarely_called_falling(steps: int, decay: str) -> None:
    assert share_still_falling(falls_with_the_rate, steps=steps, decay=decay) <= 0.08


def test_a_falling_loss_is_called_falling() -> None:
    assert share_still_falling(falls, steps=90, decay="cosine") > 0.3
    assert share_still_falling(falls, steps=500, decay="cosine") > 0.95


@pytest.mark.slow
def test_how_often_a_loss_is_called_falling() -> None:
    """Prints the table of docs/training_fit.md."""
    for decay, steps in (("cosine", 40), ("cosine", 90), ("cosine", 500), ("steps", 500)):
        shares = [
            share_still_falling(curve, steps=steps, decay=decay, draws=1000)
            for curve in (flat, falls_with_the_rate, falls)
        ]
        print(f"| {decay} | {steps} | {' | '.join(f'{share:.3f}' for share in shares)} |")
        # The level of one test at two standard errors is 0.03; of two, 0.001
        assert shares[0] <= 0.01 and shares[1] <= 0.05


def test_the_fall_is_that_of_a_straight_line() -> None:
    step = np.arange(1, 101)
    log = pd.DataFrame({"step": step, "loss": 10 - 0.05 * step, "rate": np.where(step <= 60, 1.0, 0.5)})
    last, peak = loss_falls(log)
    assert last.fall == pytest.approx(0.05 * (100 - 76) / (10 - 0.05 * 76))
    assert peak.fall == pytest.approx(0.05 * (60 - 31) / (10 - 0.05 * 31))
    assert last.se == pytest.approx(0, abs=1e-9) and last.clear and peak.clear


def test_the_standard_error_is_the_deviation_over_draws() -> None:
    draw = np.random.default_rng(0)
    step = np.arange(1, 201)
    logs = [pd.DataFrame({"step": step, "loss": 4 + 0.3 * draw.standard_normal(200), "rate": 1.0}) for _ in range(400)]
    lasts = [loss_falls(log)[0] for log in logs]
    spread = np.std([last.fall for last in lasts])
    assert np.sqrt(np.mean([last.se**2 for last in lasts])) == pytest.approx(spread, rel=0.12)


def test_a_short_log_or_one_without_rate_is_not_guessed_at() -> None:
    step = np.arange(1, 9)
    assert still_falling(*loss_falls(pd.DataFrame({"step": step, "loss": 9.0 - step, "rate": 1.0}))) is None
    nothing = pd.DataFrame(columns=["step", "loss", "rate"])
    assert still_falling(*loss_falls(nothing)) is None
    step = np.arange(1, 101)
    without_rate = pd.DataFrame({"step": step, "loss": 10 - 0.05 * step, "rate": math.nan})
    assert still_falling(*loss_falls(without_rate)) is True  # by the last quarter alone


def made(folder: Path, *, controls: tuple[str, ...] = (), seeds: tuple[int, ...] = (0, 1)) -> Path:
    """A run of 40 training images in batches of 16, with AP on 20 training images of twice that on validation."""
    write_run(folder, factors=matrix(("fpn",)), controls=controls, seeds=seeds, failed={("fpn", 1): "lost"})
    for path in folder.glob("cells/*/record.json"):
        record = json.loads(path.read_text())
        if record["status"] == "done":
            ap = record["accuracy"]["AP"]
            share = 0.5 if record["control"] == "half-data" else 1.0
            record["training"] = {"steps": 120, "batch": 16, "data_share": share}
            record["training_fit"] = {"images": 20, "ground_truths": 31, "AP": 2 * ap, "AP50": 3 * ap}
            path.write_text(json.dumps(record))
    (folder / "split.json").write_text(json.dumps({"train": {"files": [f"{row}.jpg" for row in range(40)]}}))
    return folder


def test_the_frame_has_a_row_per_finished_cell(tmp_path: Path) -> None:
    run = load_run(made(tmp_path / "run", controls=("half-data",)))
    frame = training_fit_frame(run)
    assert tuple(frame) == COLUMNS
    assert list(zip(frame["variant"], frame["seed"], strict=True)) == [cell.key for cell, _ in run.done()]
    assert ("fpn", 1) not in set(zip(frame["variant"], frame["seed"], strict=True))
    baseline, half = frame.iloc[0], frame[frame["variant"] == "half-data"].iloc[0]
    assert (baseline["steps"], baseline["epochs"], baseline["images_train"]) == (120, 48, 40)
    assert (half["epochs"], half["images_train"]) == (96, 20)
    ap = next(iter(run.done()))[1]["accuracy"]["AP"]
    assert (baseline["AP_train"], baseline["AP_val"], baseline["gap"]) == pytest.approx((2 * ap, ap, ap))
    assert baseline["images_scored"] == 20
    log = [json.loads(line) for line in (run.folder_of(run.cells[0].id) / "log.jsonl").read_text().splitlines()]
    assert baseline["loss_end"] == pytest.approx(np.mean([line["loss"] for line in log[-12:]]))


def test_means_over_seeds_and_a_decision_from_their_mean(tmp_path: Path) -> None:
    frame = training_fit_frame(load_run(made(tmp_path / "run", seeds=(0, 1, 2))))
    cells = frame[frame["variant"] == "baseline"]
    pooled = fit_by_variant(frame).set_index("variant")
    assert list(pooled.index) == ["baseline", "fpn"] and list(pooled["seeds"]) == [3, 2]
    row = pooled.loc["baseline"]
    assert row["gap"] == pytest.approx(cells["gap"].mean())
    assert row["loss_fall"] == pytest.approx(cells["loss_fall"].mean())
    assert row["loss_fall_se"] == pytest.approx(math.sqrt((cells["loss_fall_se"] ** 2).mean() / 3))


def test_a_run_without_the_new_sections_is_missing_values(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", factors=matrix(("fpn",))))
    frame = training_fit_frame(run)
    assert frame[["AP_train", "gap", "epochs", "images_train", "images_scored"]].isna().all(axis=None)
    assert frame["loss_fall"].notna().all()
    assert advice(frame, run.baseline) == "unknown"
    pending = load_run(write_run(tmp_path / "pending", factors=[{}], pending=[("baseline", 0)]))
    assert training_fit_frame(pending).empty and fit_by_variant(training_fit_frame(pending)).empty
    assert advice(training_fit_frame(pending), "baseline") == "unknown"


def rows(variant: str, *, fall: float, train: float, val: float, seeds: int = 1) -> pd.DataFrame:
    """Rows with a fall in both windows and a standard error of 0.03."""
    values = dict.fromkeys(COLUMNS, math.nan) | {"variant": variant, "AP_train": train, "AP_val": val}
    values |= {"loss_fall": fall, "peak_fall": fall, "loss_fall_se": 0.03, "peak_fall_se": 0.03}
    return pd.DataFrame([values | {"seed": seed} for seed in range(seeds)])


@pytest.mark.parametrize(
    ("fall", "train", "val", "expected"),
    [
        (0.10, 0.30, 0.28, "train longer"),
        (0.10, 0.00, 0.00, "train longer"),
        (0.00, 0.60, 0.30, "memorising"),
        (0.00, 0.45, 0.36, "neither"),  # 1.25 times
        (0.00, 0.12, 0.04, "neither"),  # 3 times, but 8 points
        (0.10, 0.60, 0.30, "neither"),
        (0.00, 0.30, 0.28, "neither"),
        (math.nan, 0.60, 0.30, "unknown"),
        (0.10, math.nan, 0.30, "unknown"),
    ],
)
def test_advice(fall: float, train: float, val: float, expected: str) -> None:
    assert advice(rows("baseline", fall=fall, train=train, val=val), "baseline") == expected


def test_seeds_make_a_small_fall_clear_and_arms_do_not() -> None:
    one = rows("baseline", fall=0.05, train=0.3, val=0.3)
    assert advice(one, "baseline") == "neither"
    assert advice(rows("baseline", fall=0.05, train=0.3, val=0.3, seeds=3), "baseline") == "train longer"
    arms = pd.concat([rows(name, fall=0.05, train=0.3, val=0.3) for name in ("fpn", "anchors", "both")])
    assert advice(arms, "baseline") == "neither"


def test_the_baseline_decides_and_the_arms_do_if_it_is_unknown() -> None:
    flat_arm = rows("fpn", fall=0.0, train=0.6, val=0.3)
    falling = rows("baseline", fall=0.1, train=0.3, val=0.3)
    assert advice(pd.concat([falling, flat_arm]), "baseline") == "train longer"
    unknown = rows("baseline", fall=math.nan, train=0.3, val=0.3)
    assert advice(pd.concat([unknown, flat_arm]), "baseline") == "memorising"
