"""Every axis, ours or a user's, keeps the contract: off is the baseline, on changes its slot alone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.axis import SLOTS, Axis, FoundAxis, clashing, derive, find_axes
from bench.data.batches import Sample, targets_of
from bench.detector.ssd import SSD
from bench.errors import UserError
from tests import tiny

AXES = find_axes("variants")
OF_SLOT = {
    "resolution": {
        "detector.size",
        "detector.feature_maps",
        "detector.steps",
        "detector.extras",
        "detector.level_norms",
        "detector.priors",
    },
    "neck": {"detector.neck"},
    "anchors": {"detector.priors"},
    "box_loss": {"detector.box_loss"},
    "class_loss": {"detector.class_loss", "detector.negatives_per_positive", "detector.object_probability"},
    "schedule": {"training.phases"},
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.weights_file(tmp_path_factory.mktemp("weights") / "tiny.pth"))


def test_the_three_remedies_are_the_default_matrix_in_the_order_of_their_slots() -> None:
    assert [name for name, found in AXES.items() if found.axis.in_default_matrix] == ["fpn", "anchors", "unfreezing"]
    assert [SLOTS.index(found.axis.slot) for found in AXES.values()] == sorted(
        SLOTS.index(found.axis.slot) for found in AXES.values()
    )


@pytest.mark.parametrize("found", AXES.values(), ids=AXES)
def test_the_contract(found: FoundAxis, weights: str) -> None:
    base = tiny.specification(weights)
    index, _ = tiny.rectangles(60)  # enough for anchors to be fitted
    off, nothing = derive(base, [], index)
    assert off == base
    assert nothing == {}
    on, prepared = derive(base, [found.axis], index)
    assert prepared.keys() == {found.axis.name}
    assert derive(base, [found.axis], index) == (on, prepared)
    changed = {
        f"{part}.{name}"
        for part in ("detector", "training")
        for name, value in asdict(getattr(on, part)).items()
        if value != asdict(getattr(base, part))[name]
    }
    assert changed
    assert changed <= OF_SLOT[found.axis.slot]
    assert found.axis.refusal(base) is None
    assert (type(found.axis).__doc__ or "").count("\n") >= 3  # remedy, cost, source


@pytest.mark.parametrize("found", AXES.values(), ids=AXES)
def test_one_class_and_an_image_without_boxes_give_a_finite_loss(found: FoundAxis, weights: str) -> None:
    index, _ = tiny.rectangles(4)
    spec, _ = derive(tiny.specification(weights, classes=1), [found.axis], index)
    empty = np.zeros((0, 4))
    sample = Sample(
        pixels=np.zeros((300, 300, 3), dtype=np.float32),
        inside=(0, 0, 300, 300),
        boxes=empty,
        labels=np.zeros(0, np.int32),
        crowd=np.zeros(0, bool),
    )
    side = spec.detector.size
    loss = SSD(spec.detector, seed=0).loss(torch.zeros(2, 3, side, side), targets_of([sample, sample]))
    assert torch.isfinite(loss.total)


def test_anchors_see_the_training_split_alone(weights: str) -> None:
    """`prepare` is handed the training index and nothing that leads to the other images."""
    index, _ = tiny.rectangles(10)
    rows = np.arange(5)
    seen: list[int] = []

    class Spy(type(AXES["anchors"].axis)):  # type: ignore[misc]
        def prepare(self, train_index, spec):  # type: ignore[no-untyped-def]
            seen.append(len(train_index.boxes))
            return super().prepare(train_index, spec)

    _, prepared = derive(tiny.specification(weights), [Spy()], index.take(rows))
    assert seen == [int(index.offsets[5])]
    assert prepared["anchors"]["recall_before"]["boxes"] == seen[0] < len(index.boxes)


def test_two_axes_of_one_slot_cannot_be_crossed() -> None:
    axes = [AXES["fpn"].axis, AXES["anchors"].axis]
    assert clashing(axes) is None
    assert "'neck'" in (clashing([*axes, AXES["fpn"].axis]) or "")


OWN = """
from dataclasses import replace
from bench.axis import Axis

class MoreNegatives(Axis):
    name = "more_negatives"
    slot = "class_loss"

    def apply(self, spec, prepared):
        return replace(spec, detector=replace(spec.detector, negatives_per_positive=5))
"""


def test_a_users_file_joins(tmp_path: Path, weights: str) -> None:
    (tmp_path / "own.py").write_text(OWN)
    found = find_axes("variants", [tmp_path / "own.py"])
    own = found["more_negatives"]
    assert set(found) == {*AXES, "more_negatives"}
    slots = [SLOTS.index(each.axis.slot) for each in found.values()]
    assert own.axis.slot == "class_loss" and slots == sorted(slots)
    index, _ = tiny.rectangles(4)
    spec, _ = derive(tiny.specification(weights), [own.axis], index)
    assert spec.detector.negatives_per_positive == 5
    (tmp_path / "own.py").write_text(OWN.replace("5", "4"))
    assert find_axes("variants", [tmp_path / "own.py"])["more_negatives"].fingerprint != own.fingerprint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no class derived from"),
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        ("def", "SyntaxError"),
        (OWN.replace("class_loss", "colour"), "`slot`, one of"),
        (OWN.replace('"more_negatives"', '"more negatives"'), "`name`"),
        (OWN.replace('"more_negatives"', '"fpn"'), "exists already"),
    ],
)
def test_a_file_that_is_no_axis_is_told(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(UserError, match=message):
        find_axes("variants", [tmp_path / "own.py"])


def test_an_axis_must_say_what_it_does() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Axis()  # type: ignore[abstract]


DATACLASS = """
from __future__ import annotations
from dataclasses import dataclass, replace
from typing import ClassVar
from bench.axis import Axis

@dataclass(frozen=True)
class Setting:
    count: int = 5
    unit: ClassVar[str] = "negatives"

class MoreNegatives(Axis):
    name = "more_negatives"
    slot = "class_loss"

    def apply(self, spec, prepared):
        return replace(spec, detector=replace(spec.detector, negatives_per_positive=Setting().count))
"""


def test_a_users_file_may_hold_dataclasses(tmp_path: Path, weights: str) -> None:
    (tmp_path / "own.py").write_text(DATACLASS)
    found = find_axes("variants", [tmp_path / "own.py"])["more_negatives"]
    spec, _ = derive(tiny.specification(weights), [found.axis], tiny.rectangles(2)[0])
    assert spec.detector.negatives_per_positive == 5


def test_files_that_are_not_there_or_not_python_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no_such.py: there is no such file"):
        find_axes("variants", [tmp_path / "no_such.py"])
    (tmp_path / "axis.txt").write_text(OWN)
    with pytest.raises(UserError, match=r"axis.txt: not a Python file"):
        find_axes("variants", [tmp_path / "axis.txt"])


def test_axes_are_applied_in_the_order_of_their_slots_whatever_the_order_asked(weights: str) -> None:
    base, (index, _) = tiny.specification(weights), tiny.rectangles(4)
    axes = [found.axis for found in AXES.values()]
    assert derive(base, axes[::-1], index) == derive(base, axes, index)
    assert list(derive(base, axes[::-1], index)[1]) == list(AXES)
