"""An axis that changes the input's size: trained, evaluated with the baseline's limits of size, and reported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import run_all
from bench.evaluation.matches import Matches
from bench.storage.run_folder import GROUND_TRUTH, MATCHES, PAGE, cell_folder
from tests.small_runs import records, request_words

LARGE = 96**2  # pixels of the network's input
SHARPER = """
from dataclasses import replace
from bench.axis import Axis


class Sharper(Axis):
    name = "sharper"
    slot = "resolution"

    def apply(self, spec, prepared):
        detector = replace(
            spec.detector, size=512, feature_maps=(64, 32, 16, 8, 6, 4), steps=(8, 16, 32, 64, 85, 128)
        )
        return replace(spec, detector=detector)
"""


def large_objects(run: Path, side: int) -> int:
    """The number of large validation objects at an input of `side` pixels."""
    truth = json.loads((run / GROUND_TRUTH).read_text())
    sizes = {image["id"]: image["width"] * image["height"] for image in truth["images"]}
    boxes = [(box["bbox"][2] * box["bbox"][3], sizes[box["image_id"]]) for box in truth["annotations"]]
    return sum(area / image * side**2 > LARGE for area, image in boxes)


@pytest.mark.usefixtures("undrawn")
def test_an_axis_of_resolution_is_reported(pictures: Path, tiny_weights: Path, tmp_path: Path) -> None:
    file = tmp_path / "sharper.py"
    file.write_text(SHARPER)
    words = [*request_words(pictures, tiny_weights, tmp_path), "--axes", "sharper", "--axis-file", str(file)]
    assert run_all.main(words) == 0
    run = tmp_path / "run"
    found = records(run)
    assert {name: record["detector"]["size"] for name, record in found.items()} == {"baseline": 300, "sharper": 512}
    counts = [found[name]["accuracy"]["ground_truths"] for name in ("baseline", "sharper")]
    assert counts[0] == counts[1]
    assert counts[0]["large_network"] == large_objects(run, 300) != large_objects(run, 512)
    matches = [Matches.load(cell_folder(run, record["id"]) / MATCHES) for record in found.values()]
    assert np.array_equal(matches[0].truth_ignored, matches[1].truth_ignored)
    table = pd.read_csv(run / "tables/ablation.csv").set_index("variant")
    assert dict(table["status"]) == {"baseline": "done", "sharper": "done"}
    assert (run / PAGE).is_file()
