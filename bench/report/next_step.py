"""The last sentence of the verdict: what to run next, and why."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.effects import UNDECIDED
from bench.analysis.power import power_frame
from bench.analysis.results import Analysis
from bench.analysis.run_records import Run
from bench.analysis.training_fit import advice, training_fit_frame
from bench.report.citations import CitedValue, Command, Part, Sentence
from bench.report.claims import claim_of
from bench.report.tables.formats import integer, is_missing, percent, two_digits
from bench.storage.run_folder import BEFORE_DECAY

DOUBLE = "double-steps"  # the control
TRAINING_OPTIONS = ("steps", "batch", "lr")  # which another profile sets
LONGER = 3  # times the steps of a training that was too short
MOST_SEEDS = 20  # beyond this, more seeds are no advice


def next_step(analysis: Analysis) -> Sentence:
    """Finish the run; train longer; train again, or decide what is undecided; or confirm the best arm."""
    run = analysis.run
    states = {run.status(cell) for cell in run.cells}
    best = str(analysis.best["variant"].iloc[0]) if len(analysis.best) else run.baseline
    if "pending" in states:
        words, arguments = "finish the run", command(run)
    elif "failed" in states:
        words, arguments = "remove the cause of the failure and repeat the command", command(run)
    elif run.smoke:
        words, arguments = "train long enough for a result", command(run, profile="quick", out=None)
    elif advice(training_fit_frame(run), run.baseline) == "train longer" and _keeps_states(run):
        words = "train longer, from where the learning rate began to fall, and see which effects stay"
        steps = LONGER * int(run.plan["base"]["training"]["steps"])
        arguments = command(run, steps=steps, continued=run.folder, out=_beside(run, f"{steps}-steps"))
    elif advice(training_fit_frame(run), run.baseline) == "train longer" and DOUBLE not in run.variants:
        words = "train longer, and measure what twice the steps gain"
        arguments = command(run, controls=[*_controls(run), DOUBLE], out=_beside(run, "longer"))
    elif _are_scenes(run) and len(run.seeds) == 1:
        words, arguments = "these are drawn scenes, so run it on your own data", ["--data", "voc:DIR"]
    elif run.baseline is not None and len(run.variants) > 1 and (len(run.seeds) == 1 or _undecided(analysis.effects)):
        return _decide(analysis)
    elif best != run.baseline:
        words = "see whether the gain holds after longer training"
        arguments = command(run, variants=[str(best)], profile="standard", out=_beside(run, "confirmed"))
    else:
        words, arguments = "look at what the data alone say", ["diagnose", *_data(run)]
    return _sentence([f"Next, {words}: "], arguments)


def command(
    run: Run,
    *,
    profile: str | None = None,
    controls: Sequence[str] | None = None,
    variants: Sequence[str] = (),
    seeds: range | None = None,
    steps: int | None = None,
    continued: Path | None = None,
    out: Path | None = Path(),
) -> list[str]:
    """The arguments of ``run_all.py`` that repeat the run, with changes.

    profile: another one, with its own steps, batches and rate. variants: of the factorial, in place of the whole.
    continued: the run to continue, by default the one that this run continues. out: the folder, None for the default
    one; by default the run's.
    """
    words = _data(run)
    chosen_before = dict(run.plan.get("options") or {})
    if profile is not None:
        chosen_before = {name: value for name, value in chosen_before.items() if name not in TRAINING_OPTIONS}
    elif continued is None and run.plan.get("continues"):
        continued = Path(run.plan["continues"]["run"])
    chosen_before |= {"steps": steps} if steps is not None else {}
    for option, name in (("--backbone", "backbone"), ("--profile", "profile")):
        value = profile if name == "profile" and profile else run.plan.get(name)
        words += [option, str(value)] if value else []
    for name, value in chosen_before.items():
        for each in value if isinstance(value, list) else [value]:
            words += [f"--{name.replace('_', '-')}", str(each)]
    words += ["--continue", str(continued)] if continued is not None else []
    words += ["--variants", ",".join(variants)] if variants else ["--axes", ",".join(run.axes) or "none"]
    chosen = _controls(run) if controls is None else controls
    words += ["--controls", ",".join(chosen)] if chosen else []
    first = min(run.seeds, default=0)
    planned = range(first, first + len(run.seeds)) if seeds is None else seeds
    words += ["--first-seed", str(planned[0])] if len(planned) and planned[0] else []
    words += ["--seeds", str(len(planned))] if len(planned) > 1 else []
    return [*words, *(["--out", str(run.folder if out == Path() else out)] if out is not None else [])]


def _keeps_states(run: Run) -> bool:
    """Whether the finished cells kept the states from which longer trainings continue."""
    cells = [cell for cell, _ in run.done()]
    return bool(cells) and all((run.folder_of(cell.id) / BEFORE_DECAY).is_file() for cell in cells)


def _are_scenes(run: Run) -> bool:
    return str(run.plan.get("source") or "").partition(":")[0] == "scenes"


def _undecided(effects: pd.DataFrame) -> bool:
    main = effects[(effects["measure"] == "AP") & (effects["class"] == "") & (effects["kind"] == "main effect")]
    return any(claim_of(row) == UNDECIDED for _, row in main.iterrows())


def _decide(analysis: Analysis) -> Sentence:
    """What main effects worth having need: seeds, and images where no number of seeds is enough."""
    run = analysis.run
    rows = power_frame(run, analysis.samples).set_index("comparison")
    comparison = "main effects" if "main effects" in rows.index else "arms"
    needs: Any = rows.loc[comparison]

    def cite(column: str, show: Callable[[float], str]) -> CitedValue:
        value = float(needs[column])
        return CitedValue(text=show(value), value=value, table="power", row=comparison, column=column)

    more_images: list[Part] = []
    if not is_missing(needs["images_needed"]) and needs["images_needed"] > needs["images"]:
        more_images = ["about ", cite("images_needed", two_digits), " validation images"]
    for column, here in (("seeds_needed", False), ("seeds_needed_here", True)):
        seeds = needs[column]
        if is_missing(seeds) or not len(run.seeds) < seeds <= MOST_SEEDS:
            continue
        more = range(max(run.seeds) + 1, min(run.seeds) + int(seeds))
        added, merged = _beside(run, f"seeds-{more[0]}-to-{more[-1]}"), _beside(run, f"{int(seeds)}-seeds")
        merge = ["report", str(run.folder), str(added), "--out", str(merged)]
        words: list[Part] = ["Next, add seeds: ", cite(column, integer), " in all find a true difference of "]
        words += [
            cite("worth", percent),
            " points",
            " on these images" if here else "",
            " with a probability of four in five",
        ]
        words += ["; for a claim about other images, score ", *more_images] if here and more_images else []
        return _sentence([*words, ": "], command(run, seeds=more, out=added), merge)
    if more_images:
        found: list[Part] = [cite("worth", percent), " points with a probability of four in five"]
        return Sentence.of(["Next, score more images: ", *more_images, " and ten seeds find a difference of ", *found])
    return _sentence(["Next, look at what the data alone say: "], ["diagnose", *_data(run)])


def _sentence(words: Sequence[Part], *commands: Sequence[str]) -> Sentence:
    """Words, then the commands to copy."""
    lines = [shlex.join(["python", "run_all.py", *arguments]) for arguments in commands]
    return Sentence((*words, Command(" && ".join(lines))))


def _data(run: Run) -> list[str]:
    words = ["--data", str(run.plan["source"])] if run.plan.get("source") else []
    for option, name in (("--eval-list", "eval_list"), ("--val-fraction", "val_fraction")):
        words += [option, str(run.plan[name])] if run.plan.get(name) is not None else []
    return words


def _controls(run: Run) -> list[str]:
    return list(dict.fromkeys(cell.control for cell in run.cells if cell.control is not None))


def _beside(run: Run, suffix: str) -> Path:
    """A folder next to the run's for the next one."""
    name = re.sub(r"(-\d+-steps)+$", "", run.folder.name) if suffix.endswith("-steps") else run.folder.name
    return run.folder.with_name(f"{name}-{suffix}")
