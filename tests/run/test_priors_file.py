"""Files of prior shapes: exact round trip, edited files and errors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.detector.prior_presets import preset_shapes
from bench.errors import UserError
from bench.run.priors_file import describe_shape, read_shapes, write_priors
from bench.spec import DetectorSpec, Shape
from tests import tiny

COUNTS = [4, 6, 6, 6, 4, 4]


def with_shapes(priors: tuple[tuple[Shape, ...], ...]) -> DetectorSpec:
    return replace(tiny.specification().detector, priors=priors)


SHAPES = st.tuples(*(st.tuples(*[st.tuples(*[st.floats(1e-6, 4)] * 2)] * count) for count in COUNTS))


@settings(max_examples=60)
@given(shapes=SHAPES, size=st.sampled_from([300, 512, 7]))
def test_shapes_are_restored_exactly_from_a_file(
    shapes: tuple[tuple[Shape, ...], ...], size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("priors") / "priors.json"
    write_priors(path, replace(with_shapes(shapes), size=size), {})
    assert read_shapes(path) == shapes  # equality of tuples of floats: every bit
    first = json.loads(path.read_text())["levels"][0][0]
    assert first["width"] == pytest.approx(shapes[0][0][0] * size, abs=1e-6)


def test_edited_pixels_count(tmp_path: Path) -> None:
    path = tmp_path / "priors.json"
    write_priors(path, with_shapes(preset_shapes("coco")), {})
    content = json.loads(path.read_text())
    content["levels"][1][2]["width"] = 99
    del content["levels"][1][3]["fractions"]
    path.write_text(json.dumps(content))
    back = read_shapes(path)
    assert back[1][2] == (99 / 300, content["levels"][1][2]["height"] / 300)
    assert back[1][3] == pytest.approx(preset_shapes("coco")[1][3], abs=1e-8)
    assert [back[0], *back[2:]] == [preset_shapes("coco")[0], *preset_shapes("coco")[2:]]


def test_a_shape_is_described_by_scale_and_ratio() -> None:
    found = describe_shape((0.3, 0.1), 300)
    assert (found["width"], found["height"], found["fractions"]) == (90, 30, [0.3, 0.1])
    assert (found["scale"], found["ratio"]) == (51.96, 3.0)  # sqrt(90 * 30), 90 / 30
    assert found["nearest"] == {"scale": 0.15, "ratio": "3:1"}
    assert describe_shape((0.05, 0.055), 300)["nearest"] == {"scale": 0.07, "ratio": "1:1"}
    assert describe_shape((0.1, 0.5), 300)["nearest"]["ratio"] == "1:3"
    # The shapes of a preset are nearest to the ratios that define them
    for level, shapes in enumerate(preset_shapes("voc")[:5]):
        names = [describe_shape(shape, 300)["nearest"]["ratio"] for shape in shapes]
        assert names == ["1:1", "1:1", "2:1", "1:2", "3:1", "1:3"][: COUNTS[level]]


def test_a_detectors_file_has_recall_and_shares(tmp_path: Path) -> None:
    spec = with_shapes(preset_shapes("coco"))
    boxes = {
        "train": np.array([[0.4, 0.4, 0.47, 0.47], [0.1, 0.1, 0.9, 0.9], [0.5, 0.5, 0.51, 0.51]]),
        "val": np.zeros((0, 4)),
    }
    path = tmp_path / "cell" / "priors.json"
    write_priors(path, spec, boxes)
    assert read_shapes(path) == spec.priors
    content = json.loads(path.read_text())
    assert content["recall"]["val"] == {"boxes": 0}
    assert content["recall"]["train"]["boxes"] == 3
    assert content["recall"]["train"]["matched"] == pytest.approx(2 / 3)
    shares = [[shape["share"]["train"] for shape in level] for level in content["levels"]]
    assert sum(share["best"] for level in shares for share in level) == pytest.approx(2 / 3)
    assert shares[0][0]["best"] == pytest.approx(1 / 3)  # 21 pixels: the smallest square
    assert all(set(shape["share"]) == {"train"} for level in content["levels"] for shape in level)


def good_content() -> dict[str, Any]:
    return {"size": 300, "levels": [[{"width": 20, "height": 30}] * count for count in COUNTS]}


def changed(**change: Any) -> dict[str, Any]:
    return {**good_content(), **change}


def with_width(value: Any) -> dict[str, Any]:
    content = good_content()
    content["levels"][3] = [{"width": value, "height": 30}, *content["levels"][3][1:]]
    return content


def with_fractions(value: Any) -> dict[str, Any]:
    content = good_content()
    content["levels"][0] = [{"width": 20, "height": 30, "fractions": value}, *content["levels"][0][1:]]
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{not json", "not a file of priors"),
        ("[1, 2]", "not a file of priors"),
        ("3", "not a file of priors"),
        (json.dumps({"size": 300}), "not a file of priors.*levels"),
        (json.dumps(changed(size=0)), "not a file of priors"),
        (json.dumps(changed(levels=3)), "not a file of priors"),
        (json.dumps(changed(levels="abc")), "not a file of priors"),
        (json.dumps(changed(levels=good_content()["levels"][:5])), r"\[4, 6, 6, 6, 4\] shapes.*\[4, 6, 6, 6, 4, 4\]"),
        (json.dumps(changed(levels=good_content()["levels"][::-1])), "needs"),
        (json.dumps(with_width(0)), "positive"),
        (json.dumps(with_width(-5)), "positive"),
        (json.dumps(with_width(float("nan"))), "positive"),
        (json.dumps(with_width(float("inf"))), "positive"),
        (json.dumps(with_width(None)), "not a file of priors"),
        (json.dumps(with_fractions("ab")), "not a file of priors"),
        (json.dumps(with_fractions([0.1])), "not a file of priors"),
        ("10" * 300, "not a file of priors"),
        (json.dumps(with_width(10**400)), "not a file of priors"),
    ],
)
def test_a_malformed_file_is_an_error(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as raised:
        read_shapes(path)
    assert str(path) in str(raised.value)


def test_a_missing_or_binary_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file.*coco, voc"):
        read_shapes(tmp_path / "missing.json")
    with pytest.raises(UserError, match="not a file of priors"):
        read_shapes(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match="not a file of priors"):
        read_shapes(tmp_path / "binary")
