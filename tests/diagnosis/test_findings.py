"""Findings: all figures in a sentence come from its numbers, and the numbers match the data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from string import Formatter

import numpy as np
import pytest

from bench.data.index import ImageIndex
from bench.diagnosis import matchable
from bench.diagnosis.diagnose import Diagnosis, diagnose
from bench.diagnosis.findings import SEVERITIES, Finding, findings
from tests.index_builders import LabelledBox, index_of
from tests.tiny import specification

DETECTOR = specification().detector


def by_kind(diagnosis: Diagnosis) -> dict[str, Finding]:
    found = findings(diagnosis)
    assert len({each.kind for each in found}) == len(found)
    return {each.kind: each for each in found}


@pytest.fixture(scope="module", autouse=True)
def few_views() -> Iterator[None]:
    """The number of views affects only the run time of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matchable, "VIEWS", 100)
        yield


@pytest.fixture(scope="module")
def hard(few_views: None) -> Diagnosis:
    """Data with every fault: 24 images of 600 x 600 with one good box each, and the faults below."""
    generator = np.random.default_rng(0)
    images: list[list[LabelledBox]] = []
    for row in range(24):
        left, top = generator.uniform(0, 300, 2)
        own: list[LabelledBox] = [(0, left, top, left + 200, top + 200)]
        # Two of 20 x 20 (10 at the network), and one of 50 x 50 (25 at the network)
        own += [(1, 10 + row, 500, 30 + row, 520), (1, 100 + row, 500, 120 + row, 520), (1, 200, 520, 250, 570)]
        if row < 6:
            own.append((0, left + 10, top, left + 210, top + 200))  # drawn twice
        images.append(own)
    train = index_of(images, size=(600, 600), classes=4)
    val = index_of([*images[:8], [(2, 0, 0, 100, 100)]], size=(600, 600), classes=4)
    names = ("cup", "bolt", "Bolts", "nut")
    train, val = (replace(index, classes=names) for index in (train, val))
    truncated = np.ones(len(train.boxes), np.int8)
    return diagnose(
        replace(train, truncated=truncated), val, DETECTOR, leaking=[("0.png", "1.png"), ("1.png", "2.png")]
    )


def test_templates_contain_no_literal_numbers(hard: Diagnosis) -> None:
    found = findings(hard)
    assert len(found) >= 10
    for each in found:
        parts = list(Formatter().parse(each.template))
        assert not any(character.isdigit() for text, *_ in parts for character in text), each.template
        assert not any(character.isdigit() for character in each.remedy), each.remedy
        assert {name for _, name, *_ in parts if name} <= set(each.numbers)
        assert each.sentence and each.sentence == each.template.format(**each.numbers)
        assert 0 <= each.share <= 1


def test_findings_are_sorted_by_severity(hard: Diagnosis) -> None:
    order = [(SEVERITIES.index(each.severity), -each.share) for each in findings(hard)]
    assert order == sorted(order)
    assert findings(hard)[0].severity == "serious"


def test_numbers_equal_hand_counts(hard: Diagnosis) -> None:
    found = by_kind(hard)
    # 24 x 4 + 6 and 8 x 4 + 6 + 1 objects; two of each image are 10 pixels, one is 25
    assert found["tiny-objects"].numbers == {
        "objects": 141,
        "size": 300,
        "tiny": 64 / 141,
        "limit": 16,
        "step": 8,
        "lost": 1,
    }
    assert found["tiny-objects"].sentence.startswith("45.4% of your 141 objects are under 16 pixels")
    assert "AP_small near zero (100.0% of its objects" in found["tiny-objects"].sentence
    assert found["shrunk-objects"].numbers["shrunk"] == 32 / 141
    suppressed = found["lost-to-suppression"].numbers
    assert (suppressed["suppressed"], suppressed["objects"], suppressed["classes"]) == (6, 39, "cup")
    assert suppressed["bound"] == pytest.approx(33 / 39)
    assert found["annotation-suspects"].numbers["annotated_twice"] == 12
    assert found["annotation-suspects"].sentence == "12 of 141 boxes (8.5%) look suspicious: 12 perhaps drawn twice"
    assert found["near-duplicates"].sentence.startswith("2 of 9 validation images (22.2%)")
    assert found["near-duplicates"].severity == "serious"
    # nut is nowhere; bolts is in validation alone
    assert found["classes-without-training"].numbers["classes"] == "Bolts"
    assert found["classes-without-training"].share == pytest.approx(1 / 3)
    assert found["classes-rare-in-validation"].numbers["classes"] == "Bolts"
    assert found["alike-class-names"].numbers["classes"] == "Bolts and bolt"
    # Validation is silent about nothing: made indexes state truncation, and there none is
    assert found["truncated"].numbers == {"share": 102 / 141, "stated": 141}
    assert found["truncated"].severity == "notable"


def test_missing_priors_are_reported_with_the_effect_of_fitting(hard: Diagnosis) -> None:
    found = by_kind(hard)["priors-miss"]
    for name in ("given", "fitted"):
        counted = hard.matchable[name]["val"]["all"]
        assert found.numbers[name] == counted["matched"] / 39
        views = hard.matchable[name]["views"]["all"]
        assert found.numbers[f"{name}_views"] == views["matched"] / views["objects"]
    assert found.share == 1 - found.numbers["given"]  # type: ignore[operator]
    assert "fitted anchors raise that to" in found.sentence and found.remedy == "try the `anchors` axis"


def easy() -> ImageIndex:
    """Faultless data: two classes with 20 squares of 90 pixels at the network, aligned with the grid."""
    return index_of([[(row % 2, 105, 105, 195, 195)] for row in range(40)], size=(300, 300))


def test_good_data_have_only_the_finding_that_priors_fit() -> None:
    found = findings(diagnose(easy(), easy(), DETECTOR))
    assert [(each.kind, each.severity) for each in found] == [("priors-fit", "fine")]
    assert found[0].sentence.startswith("The priors are not the problem: 100.0% of the 40 validation objects")


def test_priors_that_miss_training_views_are_reported() -> None:
    diagnosis = diagnose(easy(), easy(), DETECTOR)
    for priors, share in (("given", 60), ("fitted", 66)):
        diagnosis.matchable[priors]["views"]["all"] |= {"objects": 100, "matched": share, "lone": 0}
    [found] = findings(diagnosis)
    assert (found.kind, found.severity, found.share) == ("priors-miss-views", "minor", 0.4)
    assert "only 60.0% have one; fitted anchors raise that to 66.0%" in found.sentence
    diagnosis.matchable["fitted"]["views"]["all"]["matched"] = 64
    assert [each.kind for each in findings(diagnosis)] == ["priors-fit"]


def test_a_validation_split_without_objects_has_few_findings() -> None:
    found = by_kind(diagnose(easy(), index_of([[]], size=(300, 300)), DETECTOR))
    assert set(found) == {"classes-without-validation"}
    assert found["classes-without-validation"].numbers["count"] == 2


def test_a_diagnosis_is_json_and_deterministic() -> None:
    first, second = (json.dumps(asdict(diagnose(easy(), easy(), DETECTOR)), allow_nan=False) for _ in range(2))
    assert first == second
    read_back = Diagnosis(**json.loads(first))
    assert [each.sentence for each in findings(read_back)] == [
        each.sentence for each in findings(diagnose(easy(), easy(), DETECTOR))
    ]
