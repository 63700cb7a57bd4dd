"""The plan of a run: its cells, their order, and which of them are done."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.axis import FoundAxis, clashing
from bench.errors import UserError
from bench.options import WORTH
from bench.spec import BASELINE, Cell, Numerics, Specification, content_hash
from bench.storage.atomic import write_json
from bench.storage.own_files import remove_cell
from bench.storage.provenance import software_changes
from bench.storage.records import SCHEMA, read_plan, read_record
from bench.storage.run_folder import PLAN

DIFFERENCES_SHOWN = 5
FREE = ("worth", "lengths")  # of plan.json

Control = Callable[[Specification], Specification]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A checked request for a run.

    description: what the tables say of the run (data, backbone, profile).
    controls: rows beside the matrix, by name.
    seeds: number of seeds, from `first_seed` on.
    variants: the axes that are on in each row of the matrix, in the order of `axes`; None for every combination.
    worth: the smallest difference worth having, in points of AP.
    """

    description: Mapping[str, Any]
    base: Specification
    axes: Sequence[FoundAxis]
    controls: Mapping[str, Control]
    seeds: int
    split: str
    numerics: Numerics
    first_seed: int = 0
    variants: Collection[tuple[str, ...]] | None = None
    worth: float = WORTH

    @property
    def all_seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.seeds)


def plan_cells(request: Request) -> list[Cell]:
    """All cells: the combinations of the axes, fewest axes first, then the controls; all of them for every seed.

    Raises UserError if two axes of a combination have the same slot, or an axis refuses this baseline.
    """
    if request.variants is None:
        check_clashes(request.axes)
    check_refusals(request.axes, request.base)
    names = [found.axis.name for found in request.axes]
    fingerprints = {found.axis.name: found.fingerprint for found in request.axes}
    rows: list[tuple[str, tuple[str, ...], str | None, Specification]] = []
    for count in range(len(names) + 1):
        for active in itertools.combinations(names, count):
            if request.variants is None or active in request.variants:
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


def execution_order(cells: Sequence[Cell]) -> list[Cell]:
    """The cells of a plan in the order in which they run: seed by seed, each seed's variants in an order of its own.

    With one order for all seeds, a machine that slows down during a run would always slow the same variants. The order
    is drawn from the seed and the names of the variants, so a resumed run keeps it.
    """
    ordered = []
    for seed in dict.fromkeys(cell.seed for cell in cells):
        own = [cell for cell in cells if cell.seed == seed]
        names = int(content_hash([cell.variant for cell in own]), 16)
        ordered += [own[place] for place in np.random.default_rng((seed, names)).permutation(len(own))]
    return ordered


def check_refusals(axes: Sequence[FoundAxis], base: Specification) -> None:
    """Raise UserError if an axis refuses this baseline."""
    for found in axes:
        refusal = found.axis.refusal(base)
        if refusal:
            raise UserError(f"the axis {found.axis.name!r} cannot be part of this run: {refusal}")


def check_clashes(axes: Sequence[FoundAxis]) -> None:
    """Raise UserError if two axes have the same slot."""
    sentence = clashing([found.axis for found in axes])
    if sentence:
        names = ",".join(found.axis.name for found in axes)
        raise UserError(f"--axes {names}: {sentence}, so they cannot be crossed; leave one out")


def plan_content(request: Request, cells: Sequence[Cell]) -> dict[str, Any]:
    """The content of plan.json."""
    return {
        "schema": SCHEMA,
        **request.description,
        "axes": [found.axis.name for found in request.axes],
        "axis_files": {found.axis.name: found.fingerprint for found in request.axes},
        "controls": list(request.controls),
        "seeds": list(request.all_seeds),
        "worth": request.worth,
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
    """The numerics of the plan in `run`, which are decided once; None if there is no plan.

    Raises UserError if the plan is damaged, or if another version of this program wrote it with other numerics.
    """
    plan = read_plan(run)
    if plan is None or "numerics" not in plan:
        return None
    names = {field.name for field in fields(Numerics)}
    if set(plan["numerics"]) != names:
        differing = ", ".join(sorted(names ^ set(plan["numerics"])))
        raise UserError(
            f"{run} was begun by another version of this program (its plan has other numerics: {differing}). Resume it "
            "with that version, which environment.json names, or start a new run with another --out. `report` and "
            "`predict` can read it"
        )
    return Numerics(**plan["numerics"])


def settle_plan(run: Path, content: Mapping[str, Any]) -> None:
    """Write plan.json, or check that the existing one is the same. Raises UserError if it is damaged or differs.

    `FREE` entries may change: no cell depends on them.
    """
    old = read_plan(run)
    if old is None:
        write_json(run / PLAN, content)
        return
    before, after = (dict(_flat({name: plan[name] for name in plan if name not in FREE})) for plan in (old, content))
    differing = [
        name
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name) and not name.startswith(("cells.", "variants."))
    ]
    if not differing and list(old.get("cells", [])) == list(content["cells"]):
        if any(old.get(name) != content.get(name) for name in FREE):
            write_json(run / PLAN, content)
        return
    shown = [f"  {name}: was {before.get(name)!r}, now {after.get(name)!r}" for name in differing[:DIFFERENCES_SHOWN]]
    if len(differing) > DIFFERENCES_SHOWN:
        shown.append(f"  and {len(differing) - DIFFERENCES_SHOWN} more")
    raise UserError(
        f"{run} holds another plan than the one requested:\n" + "\n".join(shown or ["  its cells"]) + "\n"
        "Request the same plan to resume it, or choose another folder: --out results/NAME"
    )


def with_more_micro_batches(run: Path, request: Request) -> tuple[Request, list[Cell]]:
    """Double the micro-batches in all arms and replace plan.json; the new request and its cells.

    The cells of the old plan are deleted, even those that are done: their figures differ in the last digits.
    """
    micro_batches = min(2 * request.numerics.micro_batches, request.base.training.batch)
    smaller = replace(request, numerics=replace(request.numerics, micro_batches=micro_batches))
    cells = plan_cells(smaller)
    # First: once the plan is replaced, nothing says that these cells are ours
    for cell_id in {cell.id for cell in plan_cells(request)} - {cell.id for cell in cells}:
        remove_cell(run, cell_id)
    write_json(run / PLAN, plan_content(smaller, cells))
    return smaller, cells


def settle_software(run: Path, *, mixed: bool, warn: Callable[[str], None]) -> None:
    """Check that the current software computed the finished cells of `run`. Raises UserError naming the differences.

    mixed: pass the differences to `warn` instead.
    """
    changes = software_changes(run)
    if not changes:
        return
    listed = "\n".join(f"  {line}" for line in changes)
    if mixed:
        warn(f"warning: the cells of {run} are not all computed by the same software:\n{listed}")
        return
    raise UserError(
        f"{run} was begun with other software:\n{listed}\n"
        "Go back to that software; or start a new run: --out results/NAME; or accept cells of both versions in one "
        "table: --mix-versions (each record names its own)"
    )


def pending(run: Path, cells: Sequence[Cell]) -> list[Cell]:
    """The cells that are not done. Failed cells are among them."""
    return [cell for cell in cells if (read_record(run, cell.id) or {}).get("status") != "done"]


def _flat(content: Any, place: str = "") -> list[tuple[str, Any]]:
    """Leaves of nested JSON with their dotted paths; lists of plain values stay whole."""
    if isinstance(content, Mapping):
        return [leaf for key, value in content.items() for leaf in _flat(value, f"{place}.{key}" if place else key)]
    if isinstance(content, list | tuple) and any(isinstance(item, Mapping) for item in content):
        return [leaf for key, value in enumerate(content) for leaf in _flat(value, f"{place}.{key}")]
    return [(place, _plain(content))]


def _plain(value: Any) -> Any:
    """Tuples as lists, as JSON stores them."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
