"""Specifications: content hashes, and reading them back from a record."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from bench.errors import UserError
from bench.spec import Cell, ExtraLevel, NeckSpec, Numerics, content_hash, detector_from
from tests.made_specification import specification
from variants.baseline import training_of

pytestmark = pytest.mark.fast


def cell() -> Cell:
    return Cell(
        variant="fpn",
        factors=(("fpn", True), ("anchors", False)),
        seed=0,
        base=specification(),
        numerics=Numerics(device="cpu", precision="float32", threads=2),
        split="abc",
        axes=(("fpn", "123"),),
    )


def test_equal_cells_have_equal_ids() -> None:
    assert cell().id == cell().id
    assert len(cell().id) == 12
    assert cell().active == ("fpn",)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"split": "abd"},
        {"axes": (("fpn", "124"),)},
        {"control": "half-data"},
        {"numerics": Numerics(device="cpu", precision="float32", threads=2, cpu_kernels=True)},
        {"numerics": Numerics(device="cpu", precision="float32", threads=2, micro_batches=2)},
        {"base": replace(specification(), training=training_of("quick", 8, scenes=False))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_part_of_a_cell_changes_its_id(change: dict[str, object]) -> None:
    assert replace(cell(), **change).id != cell().id  # type: ignore[arg-type]


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert content_hash({"a": 1, "b": [2.5, None]}) == content_hash({"b": [2.5, None], "a": 1})
    assert content_hash({"a": 1}) != content_hash({"a": 1.5})


@pytest.mark.parametrize("neck", [None, NeckSpec(kind="fpn", channels=64, levels=3)])
def test_a_detector_is_read_back_from_json(neck: NeckSpec | None) -> None:
    detector = replace(specification().detector, neck=neck, class_outputs=(1, 0, 2))
    read = detector_from(json.loads(json.dumps(asdict(detector))))
    assert read == detector
    assert isinstance(read.extras[0], ExtraLevel)


@pytest.mark.parametrize("change", [{"new_field": 1}, {"extras": [{"squeeze": 1}]}, {"extras": None}])
def test_a_detector_of_another_version_is_refused(change: dict[str, object]) -> None:
    content = json.loads(json.dumps(asdict(specification().detector))) | change
    with pytest.raises(UserError, match="another version of this program"):
        detector_from(content)
