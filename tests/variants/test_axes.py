"""Each remedy differs from the baseline in its slot alone: parameters, initial values and learning rates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.axis import FoundAxis, derive, find_axes
from bench.detector.ssd import SSD
from bench.spec import Specification
from bench.training.trainer import Trainer
from tests import tiny
from variants.controls import CONTROLS

AXES = find_axes("variants")
# What a remedy may change: the pyramid replaces its maps, and the heads see their number of channels.
OWN_PARAMETERS = {
    "fpn": ("neck.", "box_heads.", "class_heads."),
    "anchors": (),
    "ciou": (),
    "resolution": ("extras.", "box_heads.", "class_heads."),
    "focal": ("class_heads.",),  # their initial biases
    "unfreezing": (),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Specification:
    return tiny.specification(str(tiny.weights_file(tmp_path_factory.mktemp("weights") / "tiny.pth")))


def arm(base: Specification, found: FoundAxis) -> Specification:
    return derive(base, [found.axis], tiny.rectangles(12)[0])[0]


def rates_of(spec: Specification) -> dict[str, float]:
    """The share of the peak learning rate of every trained parameter, by name."""
    model = SSD(spec.detector, seed=0)
    names = {id(value): name for name, value in model.named_parameters()}
    groups = Trainer(model, spec.training, tiny.NUMERICS).optimiser.param_groups
    return {names[id(value)]: group["share"] for group in groups for value in group["params"]}


def test_every_remedy_is_covered() -> None:
    assert set(OWN_PARAMETERS) == set(AXES)


@pytest.mark.parametrize("found", AXES.values(), ids=AXES)
def test_parameters_outside_the_slot_have_the_same_shapes_and_initial_values(
    found: FoundAxis, base: Specification
) -> None:
    own = OWN_PARAMETERS[found.axis.name]
    before, after = (dict(SSD(spec.detector, seed=3).named_parameters()) for spec in (base, arm(base, found)))
    kept = {name for name in before if not name.startswith(own)} if own else set(before)
    assert kept <= set(after) and {name for name in after if not own or not name.startswith(own)} == kept
    assert kept and all(torch.equal(before[name], after[name]) for name in kept)


@pytest.mark.parametrize("found", AXES.values(), ids=AXES)
def test_learning_rates_are_those_of_the_baseline(found: FoundAxis, base: Specification) -> None:
    before, after = rates_of(base), rates_of(arm(base, found))
    assert {name: after.get(name, share) for name, share in before.items()} == before
    added = {name: share for name, share in after.items() if name not in before}
    assert set(added.values()) <= {1.0} and all(name.startswith(OWN_PARAMETERS[found.axis.name]) for name in added)


def test_graded_rates_freeze_nothing_and_spare_the_lower_stages(base: Specification) -> None:
    control = CONTROLS["discriminative-rates"](base)
    assert control.training.phases == base.training.phases
    shares = sorted(set(rates_of(control).values()))
    assert shares == pytest.approx([2.6**-2, 2.6**-1, 1.0])
    assert rates_of(base).keys() == rates_of(control).keys()


def test_focal_changes_no_weight_of_the_heads_and_no_bias_but_the_background(base: Specification) -> None:
    before, after = (SSD(spec.detector, seed=3).state_dict() for spec in (base, arm(base, AXES["focal"])))
    for level in range(6):
        weight, bias = (f"class_heads.{level}.{name}" for name in ("weight", "bias"))
        assert torch.equal(before[weight], after[weight])
        changed = (before[bias] != after[bias]).view(-1, base.detector.classes + 1)
        assert changed[:, 0].all() and not changed[:, 1:].any()


def test_resolution_is_ssd_512(base: Specification) -> None:
    detector = arm(base, AXES["resolution"]).detector
    model = SSD(detector, seed=0)
    assert (detector.size, len(model.priors)) == (512, 24_564)
    unknown = replace(base, detector=replace(base.detector, priors=(*base.detector.priors[:5], ((0.9, 0.9),) * 4)))
    assert AXES["resolution"].axis.refusal(base) is None
    assert "--priors coco or voc" in str(AXES["resolution"].axis.refusal(unknown))


def test_plain_augmentation_keeps_flips_and_colours(base: Specification) -> None:
    plain = CONTROLS["plain-augmentation"](base)
    assert plain.detector == base.detector
    kept = replace(base.training.augment, expand_probability=0.0, crop_trials=0)
    assert plain.training == replace(base.training, augment=kept)


def test_the_control_of_the_pyramid_has_its_parameters(tmp_path: Path, base: Specification) -> None:
    pyramid = SSD(arm(base, AXES["fpn"]).detector, seed=0)
    lateral = SSD(CONTROLS["lateral-only"](base).detector, seed=0)
    shapes = [{name: value.shape for name, value in model.named_parameters()} for model in (pyramid, lateral)]
    assert shapes[0] == shapes[1]
