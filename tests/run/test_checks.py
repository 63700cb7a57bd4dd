"""What the words of a request stand for, before data and device are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.axis import find_axes
from bench.errors import UserError
from bench.options import RunOptions
from bench.run.checks import CheckedRun, check_run, chosen_variants
from bench.run.parsers import parse_options, run_parser

AXES = tuple(find_axes("variants")[name] for name in ("fpn", "anchors", "unfreezing"))
OTHER_NECK = """
from bench.axis import Axis


class OtherNeck(Axis):
    name = "other_neck"
    slot = "neck"

    def apply(self, spec, prepared):
        return spec
"""


def checked(*words: str) -> CheckedRun:
    return check_run(parse_options(RunOptions, run_parser(), words))


def names(run: CheckedRun) -> list[str]:
    return [found.axis.name for found in run.axes]


def test_all_combinations_run_by_default() -> None:
    run = checked()
    assert {"fpn", "anchors", "unfreezing"} <= set(names(run))
    assert (run.variants, run.notes) == (None, ())


def test_a_variant_is_named_in_any_order_and_unused_axes_are_left_out() -> None:
    run = checked("--variants", "baseline,anchors+fpn,fpn")
    assert names(run) == ["fpn", "anchors"]
    assert run.variants == frozenset({(), ("fpn",), ("fpn", "anchors")})
    assert run.notes == ()
    assert checked("--variants", "fpn+anchors,fpn").variants == run.variants


def test_the_baseline_is_added_with_a_note() -> None:
    run = checked("--variants", "unfreezing", "--controls", "half-data")
    assert run.variants == frozenset({(), ("unfreezing",)})
    assert "the baseline runs too" in run.notes[0]
    assert list(run.controls) == ["half-data"]


def test_the_baseline_alone_is_a_part() -> None:
    run = checked("--variants", "baseline")
    assert (names(run), run.variants, run.notes) == ([], frozenset({()}), ())


def test_axes_limit_what_a_variant_may_have() -> None:
    assert names(checked("--axes", "fpn,anchors", "--variants", "fpn")) == ["fpn"]
    with pytest.raises(UserError, match=r"no variant 'fpn\+unfreezing', because there is no axis 'unfreezing'"):
        checked("--axes", "fpn,anchors", "--variants", "fpn+unfreezing")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fpm", r"no variant 'fpm' \(did you mean fpn\?\); there is baseline and the combinations of fpn, anchors"),
        ("fpn+anchor", r"no variant 'fpn\+anchor', because there is no axis 'anchor' \(did you mean anchors\?\)"),
        ("basline", r"did you mean baseline\?"),
        ("half-data", "is a control; request it with --controls half-data"),
        ("fpn,,anchors", "no variant ''"),
    ],
)
def test_an_unknown_variant_is_refused_by_what_exists(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        chosen_variants(name, AXES)


def test_axes_of_one_slot_may_be_compared_but_not_combined(tmp_path: Path) -> None:
    file = tmp_path / "other.py"
    file.write_text(OTHER_NECK)
    words = ("--axis-file", str(file), "--variants")
    assert set(names(checked(*words, "fpn,other_neck"))) == {"fpn", "other_neck"}
    with pytest.raises(UserError, match=r"--variants other_neck\+fpn: .*both change the slot 'neck'.*cannot be comb"):
        checked(*words, "other_neck+fpn")
    with pytest.raises(UserError, match="cannot be crossed"):
        checked(*words[:2])


def test_an_earlier_run_is_for_the_plan_and_must_exist(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only --plan uses it"):
        checked("--like", str(tmp_path))
    with pytest.raises(UserError, match=r"not the folder of a run: it has no plan\.json"):
        checked("--plan", "--like", str(tmp_path))
    (tmp_path / "plan.json").write_text("{}")
    checked("--plan", "--like", str(tmp_path))


def test_the_letter_case_of_names_does_not_matter() -> None:
    assert names(checked("--axes", "FPN,Anchors")) == ["fpn", "anchors"]
    assert names(checked("--axes", "None")) == []
    run = checked("--variants", "Baseline,FPN+anchors", "--controls", "Half-Data")
    assert run.variants == frozenset({(), ("fpn", "anchors")})
    assert list(run.controls) == ["half-data"]
    assert run.notes == ()


def test_the_letter_case_of_a_prefix_does_not_matter(pictures: Path) -> None:
    for written in (f"VOC:{pictures}", f"voc:{pictures}"):
        options = parse_options(RunOptions, run_parser(), ["--data", written])
        assert options.data.source == f"voc:{pictures}"  # as plan.json records it
    assert checked("--data", "Scenes").data_name == "scenes"
