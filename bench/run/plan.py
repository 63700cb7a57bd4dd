"""The plan of a run: which cells there are, in which order, and which of them are done."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.axis import FoundAxis, clashing
from bench.errors import UserError
from bench.spec import BASELINE, Cell, Numerics, Specification
from bench.storage.atomic import write_json
from bench.storage.provenance import software_changes
from bench.storage.records import SCHEMA, read_json, read_record

DIFFERENCES_SHOWN = 5

Control = Callable[[Specification], Specification]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a run is asked for, once everything in it has been checked.

    description: what the tables say of it (data, backbone, profile).
    controls: the rows beside the matrix, by name.
    seeds: how many, from `first_seed` on.
    """

    description: Mapping[str, Any]
    base: Specification
    axes: Sequence[FoundAxis]
    controls: Mapping[str, Control]
    seeds: int
    split: str
    numerics: Numerics
    first_seed: int = 0

    @property
    def all_seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.seeds)


def plan_cells(request: Request) -> list[Cell]:
    """All cells: each combination of the axes in the order of a paper's table, the controls, every seed.

    Raises UserError where two axes of one slot are crossed, or an axis refuses this baseline.
    """
    check_axes(request.axes, request.base)
    names = [found.axis.name for found in request.axes]
    fingerprints = {found.axis.name: found.fingerprint for found in request.axes}
    rows: list[tuple[str, tuple[str, ...], str | None, Specification]] = []
    for count in range(len(names) + 1):
        for active in itertools.combinations(names, count):
            rows.append(("+".join(active) or BASELINE, active, None, request.base))
    rows += [(name, (), name, control(request.base)) for name, control in request.controls.items()]
    return [
        Cell(
            variant=variant,
            factors=tuple((name, name in active) for name in names),
            control=control,
            seed=seed,
            base=base,
            numerics=request.numerics,
            split=request.split,
            axes=tuple((name, fingerprints[name]) for name in active),
        )
        for seed in request.all_seeds
        for variant, active, control, base in rows
    ]


def check_axes(axes: Sequence[FoundAxis], base: Specification) -> None:
    """Raise UserError where two axes of one slot are crossed, or one refuses this baseline."""
    sentence = clashing([found.axis for found in axes])
    if sentence:
        names = ",".join(found.axis.name for found in axes)
        raise UserError(f"--axes {names}: {sentence}, so they cannot be crossed; leave one out")
    for found in axes:
        refusal = found.axis.refusal(base)
        if refusal:
            raise UserError(f"the axis {found.axis.name!r} cannot be part of this run: {refusal}")


def plan_content(request: Request, cells: Sequence[Cell]) -> dict[str, Any]:
    """The content of plan.json."""
    return {
        "schema": SCHEMA,
        **request.description,
        "axes": [found.axis.name for found in request.axes],
        "axis_files": {found.axis.name: found.fingerprint for found in request.axes},
        "controls": list(request.controls),
        "seeds": list(request.all_seeds),
        "split": request.split,
        "numerics": asdict(request.numerics),
        "base": asdict(request.base),
        "variants": list(dict.fromkeys(cell.variant for cell in cells)),
        "cells": [
            {
                "id": cell.id,
                "variant": cell.variant,
                "factors": dict(cell.factors),
                "control": cell.control,
                "seed": cell.seed,
            }
            for cell in cells
        ],
    }


def planned_numerics(run: Path) -> Numerics | None:
    """The numerics of the plan that `run` holds: they were decided once."""
    plan = read_json(run / "plan.json")
    return Numerics(**plan["numerics"]) if isinstance(plan, dict) and "numerics" in plan else None


def settle_plan(run: Path, content: Mapping[str, Any]) -> None:
    """Write plan.json, or check that the one that is there is the same.

    Raises UserError naming what differs.
    """
    old = read_json(run / "plan.json")
    if old is None:
        write_json(run / "plan.json", content)
        return
    before, after = dict(_flat(old)), dict(_flat(content))
    differing = [
        name
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name) and not name.startswith(("cells.", "variants."))
    ]
    if not differing and list(old.get("cells", [])) == list(content["cells"]):
        return
    shown = [f"  {name}: was {before.get(name)!r}, now {after.get(name)!r}" for name in differing[:DIFFERENCES_SHOWN]]
    if len(differing) > DIFFERENCES_SHOWN:
        shown.append(f"  and {len(differing) - DIFFERENCES_SHOWN} more")
    raise UserError(
        f"{run} holds another plan than the one asked for:\n" + "\n".join(shown or ["  its cells"]) + "\n"
        "Ask for the same again to go on with it, or give this one a folder of its own: --out results/NAME"
    )


def with_more_micro_batches(run: Path, request: Request) -> tuple[Request, list[Cell]]:
    """The same request with its batches in twice as many pieces, in all arms, and its cells; replaces plan.json.

    What was done in larger pieces is not part of the new plan: its cells would differ in the last digits.
    """
    micro_batches = min(2 * request.numerics.micro_batches, request.base.training.batch)
    smaller = replace(request, numerics=replace(request.numerics, micro_batches=micro_batches))
    cells = plan_cells(smaller)
    write_json(run / "plan.json", plan_content(smaller, cells))
    return smaller, cells


def settle_software(run: Path, *, mixed: bool, say: Callable[[str], None]) -> None:
    """Check that what `run` holds was computed by the software that is to go on with it.

    mixed: go on all the same; `say` is told what differs. Raises UserError with the differences otherwise.
    """
    changes = software_changes(run)
    if not changes:
        return
    listed = "\n".join(f"  {line}" for line in changes)
    if mixed:
        say(f"warning: the cells of {run} are not all computed by the same software:\n{listed}")
        return
    raise UserError(
        f"{run} was begun with other software than this:\n{listed}\n"
        "Go back to that software; or start anew in a folder of its own: --out results/NAME; or accept cells of both "
        "in one table: --mix-versions (each record names its own)"
    )


def pending(run: Path, cells: Sequence[Cell]) -> list[Cell]:
    """The cells without a record of success: failures are tried again, what is done is never repeated."""
    return [cell for cell in cells if (read_record(run, cell.id) or {}).get("status") != "done"]


def _flat(content: Any, place: str = "") -> list[tuple[str, Any]]:
    """Leaves of nested JSON with their dotted places; lists of plain values stay whole."""
    if isinstance(content, Mapping):
        return [leaf for key, value in content.items() for leaf in _flat(value, f"{place}.{key}" if place else key)]
    if isinstance(content, list | tuple) and any(isinstance(item, Mapping) for item in content):
        return [leaf for key, value in enumerate(content) for leaf in _flat(value, f"{place}.{key}")]
    return [(place, _plain(content))]


def _plain(value: Any) -> Any:
    """Tuples as the lists that JSON makes of them."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
