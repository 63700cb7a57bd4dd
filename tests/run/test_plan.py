"""Which cells a run has, and what it accepts in an existing folder."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from bench.axis import Axis, FoundAxis, find_axes
from bench.errors import UserError
from bench.run.plan import (
    Request,
    execution_order,
    pending,
    plan_cells,
    plan_content,
    planned_numerics,
    settle_plan,
    with_more_micro_batches,
)
from bench.spec import Numerics
from bench.storage.run_folder import PLAN, RECORD, cell_folder, cell_folders
from tests.made_specification import specification
from variants.controls import CONTROLS

pytestmark = pytest.mark.fast

AXES = find_axes("variants")
NUMERICS = Numerics(device="cpu", precision="float32", threads=2)


def request(*axes: str, **changes: Any) -> Request:
    base = specification()
    base = replace(base, detector=replace(base.detector, weights="pretrained"))
    content: dict[str, Any] = {
        "description": {"data": "scenes"},
        "base": base,
        "axes": [AXES[name] for name in axes],
        "controls": {},
        "seeds": 1,
        "split": "abc",
        "numerics": NUMERICS,
    }
    return Request(**(content | changes))


def test_the_matrix_has_every_combination_with_fewer_axes_first() -> None:
    cells = plan_cells(request("fpn", "anchors", "unfreezing"))
    assert [cell.variant for cell in cells] == [
        *("baseline", "fpn", "anchors", "unfreezing"),
        *("fpn+anchors", "fpn+unfreezing", "anchors+unfreezing", "fpn+anchors+unfreezing"),
    ]
    assert [cell.active for cell in cells][4] == ("fpn", "anchors")
    assert len({cell.id for cell in cells}) == 8
    assert len({(cell.base, cell.numerics, cell.split, cell.seed) for cell in cells}) == 1
    assert cells[1].axes == (("fpn", AXES["fpn"].fingerprint),)


def test_seeds_repeat_all_rows_and_controls_follow_the_matrix() -> None:
    controls = {name: CONTROLS[name] for name in ("half-data", "double-steps")}
    cells = plan_cells(request("fpn", controls=controls, seeds=2, first_seed=5))
    assert [(cell.variant, cell.seed) for cell in cells] == [
        (variant, seed) for seed in (5, 6) for variant in ("baseline", "fpn", "half-data", "double-steps")
    ]
    half, double = cells[2:4]
    assert (half.control, half.base.training.data_share, half.active) == ("half-data", 0.5, ())
    assert double.base.training.steps == 2 * cells[0].base.training.steps


def test_every_seed_runs_its_cells_in_an_order_of_its_own() -> None:
    controls = {"half-data": CONTROLS["half-data"]}
    cells = plan_cells(request("fpn", "anchors", "unfreezing", controls=controls, seeds=20))
    ordered = execution_order(cells)
    assert sorted(cell.id for cell in ordered) == sorted(cell.id for cell in cells)
    assert [cell.seed for cell in ordered] == [cell.seed for cell in cells]
    orders = {tuple(cell.variant for cell in ordered if cell.seed == seed) for seed in range(20)}
    firsts = {order[0] for order in orders}
    assert len(orders) == 20
    assert len(firsts) > 4, firsts


def test_the_order_of_a_seed_depends_on_nothing_but_the_seed_and_the_variants() -> None:
    def order(seeds: int, first_seed: int, *axes: str) -> list[str]:
        cells = plan_cells(request(*axes, seeds=seeds, first_seed=first_seed))
        return [cell.variant for cell in execution_order(cells) if cell.seed == 7]

    axes = ("fpn", "anchors", "unfreezing")
    assert order(8, 0, *axes) == order(1, 7, *axes)
    assert order(1, 7, *axes) != order(1, 7, "fpn", "unfreezing")


def test_a_part_of_the_matrix_keeps_its_names_and_order() -> None:
    part = {("fpn", "anchors"), (), ("anchors",)}
    cells = plan_cells(request("fpn", "anchors", variants=part, controls={"half-data": CONTROLS["half-data"]}))
    assert [cell.variant for cell in cells] == ["baseline", "anchors", "fpn+anchors", "half-data"]
    whole = {cell.variant: cell.id for cell in plan_cells(request("fpn", "anchors"))}
    assert all(whole[cell.variant] == cell.id for cell in cells[:3])


def test_another_part_is_another_plan(tmp_path: Path) -> None:
    write_plan(tmp_path, request("fpn", "anchors", variants={(), ("fpn", "anchors")}))
    with pytest.raises(UserError, match=r"variants: was \['baseline', 'fpn\+anchors'\], now \['baseline', 'fpn', "):
        write_plan(tmp_path, request("fpn", "anchors"))


def test_what_is_worth_having_may_change(tmp_path: Path) -> None:
    write_plan(tmp_path, request("fpn"))
    before = json.loads((tmp_path / PLAN).read_text())
    assert before["worth"] == 1.0
    write_plan(tmp_path, request("fpn", worth=2.5))
    assert json.loads((tmp_path / PLAN).read_text()) == before | {"worth": 2.5}
    del before["worth"]  # a plan of an older version
    (tmp_path / PLAN).write_text(json.dumps(before))
    write_plan(tmp_path, request("fpn", worth=0.5))
    assert json.loads((tmp_path / PLAN).read_text())["worth"] == 0.5
    with pytest.raises(UserError) as raised:
        write_plan(tmp_path, request("fpn", worth=3.0, seeds=2))
    assert "worth:" not in str(raised.value)
    assert json.loads((tmp_path / PLAN).read_text())["worth"] == 0.5


def test_axes_with_the_same_slot_are_refused() -> None:
    class OtherNeck(Axis):
        """Has the slot of the feature pyramid."""

        name = "other"
        slot = "neck"

        def apply(self, spec: Any, prepared: Any) -> Any:
            return spec

    axes = [AXES["fpn"], FoundAxis(axis=OtherNeck(), file=Path("other.py"), fingerprint="0")]
    with pytest.raises(UserError, match=r"--axes fpn,other: .* both change the slot 'neck'.*leave one out"):
        plan_cells(request(axes=axes))
    apart = plan_cells(request(axes=axes, variants={(), ("fpn",), ("other",)}))
    assert [cell.variant for cell in apart] == ["baseline", "fpn", "other"]


def test_an_axis_that_refuses_the_baseline_is_named() -> None:
    with pytest.raises(UserError, match="'unfreezing' cannot be part of this run: with --weights none"):
        plan_cells(request("unfreezing", base=specification()))


def write_plan(run: Path, wanted: Request) -> None:
    settle_plan(run, plan_content(wanted, plan_cells(wanted)))


def test_the_same_plan_is_accepted_and_another_one_is_refused_by_its_differences(tmp_path: Path) -> None:
    write_plan(tmp_path, request("fpn"))
    before = (tmp_path / PLAN).read_bytes()
    write_plan(tmp_path, request("fpn"))
    assert (tmp_path / PLAN).read_bytes() == before
    other = request("fpn")
    other = replace(other, seeds=2, base=replace(other.base, training=replace(other.base.training, rate=0.5)))
    with pytest.raises(UserError) as raised:
        write_plan(tmp_path, other)
    text = str(raised.value)
    assert "seeds: was [0], now [0, 1]" in text
    assert "base.training.rate: was 0.001, now 0.5" in text
    assert "--out" in text
    assert (tmp_path / PLAN).read_bytes() == before


def test_many_differences_are_counted(tmp_path: Path) -> None:
    write_plan(tmp_path, request("fpn"))
    numerics = Numerics(device="cuda", precision="bfloat16", threads=3, cpu_kernels=True, micro_batches=2)
    with pytest.raises(UserError, match="and 4 more"):
        write_plan(tmp_path, request("anchors", numerics=numerics))


def test_numerics_are_read_back_from_the_plan(tmp_path: Path) -> None:
    assert planned_numerics(tmp_path) is None
    write_plan(tmp_path, request(numerics=replace(NUMERICS, cpu_kernels=True, micro_batches=2)))
    assert planned_numerics(tmp_path) == replace(NUMERICS, cpu_kernels=True, micro_batches=2)
    assert json.loads((tmp_path / PLAN).read_text())["numerics"]["cpu_kernels"] is True


def test_numerics_of_another_version_are_refused(tmp_path: Path) -> None:
    write_plan(tmp_path, request("fpn"))
    old = asdict(NUMERICS)
    old["pieces"], old["compiled"] = old.pop("micro_batches"), old.pop("cpu_kernels")
    (tmp_path / PLAN).write_text(json.dumps(json.loads((tmp_path / PLAN).read_text()) | {"numerics": old}))
    with pytest.raises(UserError, match=r"another version .*compiled, cpu_kernels, micro_batches, pieces.*--out"):
        planned_numerics(tmp_path)


def test_micro_batches_double_up_to_the_batch_and_replace_the_plan(tmp_path: Path) -> None:
    wanted = request("fpn")
    write_plan(tmp_path, wanted)
    ids = {cell.id for cell in plan_cells(wanted)}
    for expected in (2, 4, 4):
        wanted, cells = with_more_micro_batches(tmp_path, wanted)
        assert wanted.numerics.micro_batches == expected
        planned = planned_numerics(tmp_path)
        assert planned is not None
        assert planned.micro_batches == expected
        assert ids.isdisjoint(cell.id for cell in cells)


def test_only_cells_of_the_replaced_plan_are_deleted(tmp_path: Path) -> None:
    wanted = request("fpn")
    write_plan(tmp_path, wanted)
    first, second = plan_cells(wanted)
    for cell_id in (first.id, second.id, "0123456789ab"):
        cell_folder(tmp_path, cell_id).mkdir(parents=True)
        (cell_folder(tmp_path, cell_id) / RECORD).touch()
    notes = cell_folder(tmp_path, second.id) / "notes.txt"
    notes.touch()
    with_more_micro_batches(tmp_path, wanted)
    left = {path.relative_to(tmp_path / "cells").as_posix() for path in (tmp_path / "cells").rglob("*.*")}
    assert left == {"0123456789ab/record.json", f"{second.id}/notes.txt"}
    assert not cell_folder(tmp_path, first.id).exists()


def test_a_kill_before_the_plan_is_replaced_leaves_the_old_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every cell in the folder is then still one of the plan."""
    wanted = request("fpn")
    write_plan(tmp_path, wanted)
    for cell in plan_cells(wanted):
        cell_folder(tmp_path, cell.id).mkdir(parents=True)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("bench.run.plan.write_json", killed)
        with_more_micro_batches(tmp_path, wanted)
    assert planned_numerics(tmp_path) == wanted.numerics
    assert cell_folders(tmp_path) == []


def test_cells_without_a_record_of_success_are_pending(tmp_path: Path) -> None:
    cells = plan_cells(request("fpn", "anchors"))
    for cell, status in zip(cells, ("done", "failed"), strict=False):
        folder = cell_folder(tmp_path, cell.id)
        folder.mkdir(parents=True)
        (folder / RECORD).write_text(json.dumps({"id": cell.id, "status": status}))
    assert [cell.variant for cell in pending(tmp_path, cells)] == ["fpn", "anchors", "fpn+anchors"]
