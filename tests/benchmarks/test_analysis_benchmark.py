"""Speed of evaluation and analysis: evaluation, re-accumulation, and everything at the size of COCO.

Not run with the other tests (see `test_throughput_benchmark`):

    pytest tests/benchmarks/test_analysis_benchmark.py -o addopts= --benchmark-only
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.analysis.bootstrap import bootstrap_weights, weighted_metrics
from bench.data.split import VAL, stratify
from bench.detector.prior_fitting import fit_shapes, recall
from bench.evaluation.coco import evaluate
from bench.evaluation.matches import average_precision
from tests import tiny
from tests.analysis.made_matches import draw_matches
from tests.benchmarks.split_builders import made_split

ROUNDS = 10
IMAGES, BOXES = 118_000, 860_000  # as COCO's train2017


@pytest.mark.benchmark(group="evaluation")
def test_evaluation_of_400_images_of_25_classes(benchmark: BenchmarkFixture) -> None:
    index, detections = made_split(images=400, classes=25, each=200)
    benchmark.extra_info["detections"] = len(detections.scores)
    evaluation = benchmark.pedantic(evaluate, args=(index, detections), rounds=3, iterations=1)
    assert evaluation.accuracy["AP"] > 0


@pytest.mark.benchmark(group="evaluation")
def test_a_hundred_bootstrap_replicates(benchmark: BenchmarkFixture) -> None:
    index, detections = made_split(images=400, classes=25, each=200)
    evaluation = evaluate(index, replace(detections))
    drawn = np.random.default_rng(0).multinomial(400, np.full(400, 1 / 400), size=100).astype(np.float64)
    ap = benchmark.pedantic(
        average_precision, args=(evaluation.matches, drawn), rounds=ROUNDS, warmup_rounds=1, iterations=1
    )
    assert ap.shape == (100, 25, 10)


@pytest.mark.benchmark(group="effects")
def test_a_thousand_replicates_of_eight_cells_of_400_images(benchmark: BenchmarkFixture) -> None:
    cells = draw_matches(np.random.default_rng(0), [0.3] * 8, images=400, false=195, sizes=True)
    weights = bootstrap_weights(np.arange(400), 1000)
    figures = benchmark.pedantic(lambda: [weighted_metrics(cell, weights) for cell in cells], rounds=1, iterations=1)
    benchmark.extra_info["detections"] = sum(len(cell.image) for cell in cells)
    assert all(each["AP", ""].shape == (1001,) for each in figures)


@pytest.mark.benchmark(group="effects")
def test_a_thousand_paired_replicates_at_the_size_of_val2017(benchmark: BenchmarkFixture) -> None:
    """Two models on 5,000 images with 80 classes and 100 detections per image."""
    pair = draw_matches(np.random.default_rng(0), [0.3, 0.35], images=5000, classes=80, false=97)
    weights = bootstrap_weights(np.arange(5000), 1000)

    def difference() -> float:
        one, other = (np.nanmean(average_precision(cell, weights), axis=(1, 2)) for cell in pair)
        return float((other - one).std())

    benchmark.extra_info["detections"] = [len(cell.image) for cell in pair]
    assert benchmark.pedantic(difference, rounds=1, iterations=1) > 0


@pytest.mark.benchmark(group="COCO's size")
def test_fitting_priors(benchmark: BenchmarkFixture) -> None:
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.array([(20, 30), (60, 40), (120, 150), (12, 12)]) / 300, BOXES // 4, axis=0)
    size = np.clip(kinds * np.exp(rng.normal(0, 0.3, kinds.shape)), 0.003, 0.9)
    low = rng.random(size.shape) * (1 - size)
    boxes = np.concatenate((low, low + size), axis=1)
    spec = tiny.specification().detector
    fitted = benchmark.pedantic(fit_shapes, args=(boxes, spec), rounds=1, iterations=1)
    some = boxes[::400]
    assert recall(some, replace(spec, priors=fitted))["matched"] > recall(some, spec)["matched"]


@pytest.mark.benchmark(group="COCO's size")
def test_stratifying(benchmark: BenchmarkFixture) -> None:
    rng = np.random.default_rng(0)
    presence = rng.random((IMAGES, 80)) < np.geomspace(0.001, 0.4, 80)
    sides = benchmark.pedantic(stratify, args=(presence, 0.2, 0), rounds=1, iterations=1)
    assert abs(np.mean(sides == VAL) - 0.2) < 0.001


MEASURED = """
import json, resource, sys, time
from pathlib import Path
from bench.data.readers.coco import read_coco
start = time.process_time()  # CPU time: other processes may use the machine
reading = read_coco(Path(sys.argv[1]))
seconds = time.process_time() - start
index = reading.index
index_mb = sum(value.nbytes for value in vars(index).values() if hasattr(value, "nbytes")) / 1e6
status = Path("/proc/self/status")  # getrusage's peak includes that of the parent
if status.exists():
    peak_mb = int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
else:
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2  # macOS: bytes
print(json.dumps([seconds, peak_mb, index_mb, len(index), len(index.boxes), len(reading.problems)]))
"""


@pytest.mark.benchmark(group="COCO's size")
def test_reading_train2017(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """In a child process, whose peak memory is then that of reading."""
    images, boxes = IMAGES, BOXES
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(images):
        (folder / f"{number:012d}.jpg").touch()
    # As long as COCO's average polygon, which makes the file as large as train2017's (450 MB)
    polygon = ", ".join(f"{value}.{value % 100:02d}" for value in range(100, 153))
    with (tmp_path / "annotations.json").open("w") as file:
        file.write('{"images": [')
        file.write(
            ",".join(
                f'{{"id": {number * 5}, "file_name": "{number:012d}.jpg", "width": 640, "height": 480}}'
                for number in range(images)
            )
        )
        file.write('], "annotations": [')
        for number in range(boxes):
            file.write(
                f'{"," * (number > 0)}{{"segmentation": [[{polygon}]], "area": 2835.51, "iscrowd": 0, '
                f'"image_id": {number * 7 % images * 5}, "bbox": [{number % 500}.26, 55.62, 53.04, 53.46], '
                f'"category_id": {number % 80 + 1}, "id": {number}}}'
            )
        categories = [{"id": label, "name": f"class {label}"} for label in range(1, 81)]
        file.write(f'], "categories": {json.dumps(categories)}}}')
    command = [sys.executable, "-c", MEASURED, str(tmp_path)]
    run = benchmark.pedantic(
        lambda: subprocess.run(command, capture_output=True, text=True, check=True), rounds=1, iterations=1
    )
    seconds, peak_mb, index_mb, *counts = json.loads(run.stdout)
    size_mb = (tmp_path / "annotations.json").stat().st_size / 1e6
    print(f"{size_mb:.0f} MB of JSON: {seconds:.1f} s of CPU, peak {peak_mb:.0f} MB, index {index_mb:.0f} MB")
    assert counts == [images, boxes, 0]
    assert peak_mb < 2000
