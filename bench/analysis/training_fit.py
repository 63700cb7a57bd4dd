"""Whether training was too short, or memorised its images: AP on training images and the loss at the end.

The learning rate falls towards the end of a training, and the loss falls with it even where more steps would gain
nothing. So "still falling" is decided in two windows: the last quarter of the steps, and the second half of the steps
at the peak rate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from bench.analysis.run_records import Run, log_frame
from bench.spec import images_in_share

Advice = Literal["train longer", "memorising", "neither", "unknown"]

LAST = 0.25  # share of the steps in the last window
PEAK = 0.5  # share of the steps at the peak rate in the other window
LEAST_POINTS = 8  # in a window; with fewer, a flat loss exceeds CLEAR_T in over 5% of trainings
CLEAR_T = 2.0  # standard errors
CLEAR_FALL = 0.02  # of the loss at the start of the window
END = 0.1  # share of the logged steps that `loss_end` is the mean of
LARGE_RATIO, LARGE_GAP = 1.5, 0.1  # AP on training images to AP on validation images; their difference

COLUMNS = (
    *("variant", "seed", "steps", "epochs", "images_train", "images_scored", "AP_train", "AP_val", "gap"),
    *("loss_end", "loss_fall", "loss_fall_se", "peak_fall", "peak_fall_se", "still_falling"),
)


@dataclass(frozen=True, kw_only=True)
class Fall:
    """By how much a loss falls in a window, as a fraction of its value at the start, and the standard error.

    Both are NaN if the window has too few points.
    """

    fall: float
    se: float

    @property
    def clear(self) -> bool | None:
        """Whether the loss falls clearly; None if unknown."""
        if math.isnan(self.fall):
            return None
        return self.fall > CLEAR_FALL and self.fall > CLEAR_T * self.se


def training_fit_frame(run: Run) -> pd.DataFrame:
    """One row per finished cell, with `COLUMNS`.

    steps, epochs, images_train: of the cell; the last two are NaN if the number of training images is unknown.
    images_scored, AP_train: the sample of training images and the AP on it, NaN in records until November 2026.
    AP_val: on the validation images. gap: AP_train - AP_val. Fractions of 1.
    loss_end: mean loss of the last tenth of the steps.
    loss_fall, peak_fall: relative fall in the last quarter of the steps, and in the second half of the steps at the
        peak learning rate, each with its standard error (``_se``).
    still_falling: True, False, or None if the log is too short.
    """
    logs = dict(list(log_frame(run).groupby("id")))
    rows = []
    for cell, record in run.done():
        training = record.get("training") or {}
        images = images_trained(run, training)
        fit = record.get("training_fit")
        ap_train, ap_val = _value(fit, "AP"), _value(record.get("accuracy"), "AP")
        row = {
            "variant": cell.variant,
            "seed": cell.seed,
            "steps": _value(record.get("cost"), "steps"),
            "epochs": epochs(training, images),
            "images_train": math.nan if images is None else images,
            "images_scored": _value(fit, "images"),
            "AP_train": ap_train,
            "AP_val": ap_val,
            "gap": ap_train - ap_val,
        }
        rows.append(row | _loss_columns(logs.get(cell.id, pd.DataFrame(columns=["step", "loss", "rate"]))))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"still_falling": object})


def fit_by_variant(frame: pd.DataFrame) -> pd.DataFrame:
    """A `training_fit_frame` with one row per variant: the number of seeds, and means over them.

    The falls are pooled over seeds: their standard errors are those of the means, and `still_falling` is decided anew.
    """
    rows = []
    for variant, cells in frame.groupby("variant", sort=False):
        last, peak = (_pooled(cells, name) for name in ("loss_fall", "peak_fall"))
        row: dict[str, Any] = {"variant": variant, "seeds": len(cells)}
        row |= {name: cells[name].mean() for name in COLUMNS[2:] if name != "still_falling"}
        row |= {"loss_fall_se": last.se, "peak_fall_se": peak.se, "still_falling": still_falling(last, peak)}
        rows.append(row)
    columns = ["variant", "seeds", *COLUMNS[2:]]
    return pd.DataFrame(rows, columns=columns).astype({"still_falling": object})


def advice(frame: pd.DataFrame, baseline: str | None) -> Advice:
    """What a `training_fit_frame` says of the run: by the baseline's rows, or by all rows if these do not tell.

    "train longer": the loss was still falling, and AP on training images is not far above that on validation images.
    "memorising": it is far above, and the loss was flat. "neither": all else. "unknown": no log or no AP that tells.
    """
    first = _advice(frame[frame["variant"] == baseline])
    return first if first != "unknown" else _advice(frame)


def images_trained(run: Run, training: Mapping[str, Any]) -> int | None:
    """The number of images that `training`, of a plan or record, uses; None if unknown."""
    return None if run.train_images is None else images_in_share(run.train_images, training.get("data_share", 1.0))


def epochs(training: Mapping[str, Any], images: int | None) -> float:
    """How often `training`, of a plan or record, uses each of `images`; NaN if unknown."""
    if not images or not {"steps", "batch"} <= training.keys():
        return math.nan
    return float(training["steps"] * training["batch"] / images)


def loss_falls(log: pd.DataFrame) -> tuple[Fall, Fall]:
    """The falls in the last quarter of the steps, and in the second half of the steps at the peak learning rate.

    log: step, loss, rate of one cell, ordered by step. The second fall is NaN if the rate is unknown, or is at its peak
    for too few steps.
    """
    log = log.dropna(subset=["step", "loss"])
    at_peak = log[log["rate"] >= (1 - 1e-6) * log["rate"].max()]
    return _fall(_end_of(log, LAST)), _fall(_end_of(at_peak, PEAK))


def still_falling(last: Fall, peak: Fall) -> bool | None:
    """Whether a loss clearly falls in both windows; None if unknown. An unknown peak leaves it to the last quarter."""
    return last.clear if peak.clear is None or last.clear is None else last.clear and peak.clear


def _end_of(log: pd.DataFrame, share: float) -> pd.DataFrame:
    """The last `share` of the steps in `log`."""
    step = log["step"]
    return log[step > step.max() - share * (step.max() - step.min())]


def _fall(log: pd.DataFrame) -> Fall:
    """The fall of a straight line by least squares, with the standard error from its residuals."""
    step, loss = (log[name].to_numpy(dtype=float) for name in ("step", "loss"))
    if len(step) < LEAST_POINTS:
        return Fall(fall=math.nan, se=math.nan)
    centred = step - step.mean()
    spread = float((centred**2).sum())
    slope = float(centred @ loss) / spread
    residuals = loss - loss.mean() - slope * centred
    slope_se = math.sqrt(float((residuals**2).sum()) / (len(step) - 2) / spread)
    start = float(loss.mean() + slope * centred[0])
    if start <= 0:
        return Fall(fall=math.nan, se=math.nan)
    span = float(step[-1] - step[0])
    return Fall(fall=-slope * span / start, se=slope_se * span / start)


def _advice(rows: pd.DataFrame) -> Advice:
    falling = still_falling(_pooled(rows, "loss_fall"), _pooled(rows, "peak_fall"))
    known = rows.dropna(subset=["AP_train", "AP_val"])
    if falling is None or known.empty:
        return "unknown"
    train, val = float(known["AP_train"].mean()), float(known["AP_val"].mean())
    large = train >= LARGE_RATIO * val and train - val >= LARGE_GAP
    if falling:
        return "neither" if large else "train longer"
    return "memorising" if large else "neither"


def _pooled(rows: pd.DataFrame, name: str) -> Fall:
    """The mean of a fall over cells. Cells of one seed see the same batches, so only seeds count as independent."""
    known = rows.dropna(subset=[name])
    if known.empty:
        return Fall(fall=math.nan, se=math.nan)
    variance = float((known[f"{name}_se"] ** 2).mean()) / known["seed"].nunique()
    return Fall(fall=float(known[name].mean()), se=math.sqrt(variance))


def _loss_columns(log: pd.DataFrame) -> dict[str, Any]:
    losses = log["loss"].dropna()
    last, peak = loss_falls(log)
    return {
        "loss_end": float(losses.tail(max(1, round(END * len(losses)))).mean()),
        "loss_fall": last.fall,
        "loss_fall_se": last.se,
        "peak_fall": peak.fall,
        "peak_fall_se": peak.se,
        "still_falling": still_falling(last, peak),
    }


def _value(section: Mapping[str, Any] | None, name: str) -> float:
    value = (section or {}).get(name)
    return math.nan if value is None else float(value)
