"""How AP and the effects change with the length of training: the runs that continue one another.

A run that continues a shorter one stores the figures of all shorter ones in ``lengths.json``, so that its report needs
no other folder.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.effects import HIGHER, LOWER, THESE_MODELS, effects_frame
from bench.analysis.factorial import VERSUS
from bench.analysis.run_records import Run, load_run
from bench.analysis.samples import samples_of
from bench.analysis.training_fit import fit_by_variant, training_fit_frame
from bench.storage.records import SCHEMA, read_json_object
from bench.storage.run_folder import LENGTHS

COLUMNS = ("row", "variant", "steps", "epochs", "seeds", "AP", "effect", "low", "high", "verdict")
CLEAR = (HIGHER, LOWER)


def lengths_so_far(folder: Path) -> dict[str, Any]:
    """The content of lengths.json for a run that continues the one in `folder`. Raises UserError if it is damaged."""
    run = load_run(folder)
    frame = lengths_frame(run, effects_frame(run, samples_of(run))).astype(object)
    rows = frame.where(frame.notna(), None).to_dict("records")
    return {"schema": SCHEMA, "rows": rows}


def lengths_frame(run: Run, effects: pd.DataFrame) -> pd.DataFrame:
    """One row per length and variant with an AP, shortest first: the runs that `run` continues, then `run`.

    row: such as "fpn after 200 steps". steps, epochs: of the variant's training. seeds: finished ones.
    AP: mean over them. effect, low, high, verdict: the difference from the baseline as in `effects`; missing for the
    baseline. Fractions of 1.

    Raises UserError if lengths.json is damaged.
    """
    path = run.folder / LENGTHS
    stored = read_json_object(path).get("rows", []) if path.is_file() else []
    earlier = pd.DataFrame([row for row in stored if isinstance(row, dict)], columns=list(COLUMNS))
    frame = pd.concat([earlier, _own(run, effects)], ignore_index=True) if len(earlier) else _own(run, effects)
    return frame.astype({name: float for name in ("AP", "effect", "low", "high", "steps", "epochs", "seeds")})


def lengths_of(frame: pd.DataFrame) -> list[float]:
    """The numbers of steps in a `lengths_frame`, rising."""
    return sorted(frame["steps"].dropna().unique().tolist())


def turned(frame: pd.DataFrame) -> list[tuple[pd.Series, pd.Series]]:
    """Effects that were clear at a shorter length and have the other sign at the longest: both rows of the frame."""
    if frame.empty:
        return []
    pairs = []
    for _, row in frame[frame["steps"] == max(lengths_of(frame))].iterrows():
        before = frame[(frame["variant"] == row["variant"]) & (frame["steps"] < row["steps"])]
        clear = before[[str(verdict).removeprefix(THESE_MODELS) in CLEAR for verdict in before["verdict"]]]
        opposite = clear[clear["effect"] * row["effect"] < 0]
        if len(opposite):
            pairs.append((opposite.iloc[-1], row))
    return pairs


def _own(run: Run, effects: pd.DataFrame) -> pd.DataFrame:
    fits: dict[Any, dict[Any, Any]] = fit_by_variant(training_fit_frame(run)).set_index("variant").to_dict("index")
    arms = effects[(effects["measure"] == "AP") & (effects["class"] == "") & effects["kind"].isin(("arm", "control"))]
    by_variant: dict[str, dict[Any, Any]] = {row["contrast"].split(VERSUS)[0]: row for row in arms.to_dict("records")}
    rows = []
    for variant in run.variants:
        fit, effect = fits.get(variant, {}), by_variant.get(variant, {})
        if math.isnan(fit.get("AP_val", math.nan)):
            continue
        rows.append(
            {
                "row": f"{variant} after {fit['steps']:.0f} steps",
                "variant": variant,
                **{name: float(fit[name]) for name in ("steps", "epochs", "seeds")},
                "AP": float(fit["AP_val"]),
                **{name: float(effect.get(name, math.nan)) for name in ("effect", "low", "high")},
                "verdict": str(effect.get("verdict", "")),
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))
