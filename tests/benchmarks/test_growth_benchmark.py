"""Time per image of data sets with a hundred, a thousand and ten thousand images.

Not run with the other tests (see `test_throughput_benchmark`):

    pytest tests/benchmarks/test_growth_benchmark.py -o addopts= --benchmark-only -s
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageFilter
from pytest_benchmark.fixture import BenchmarkFixture

from bench.data.batches import TrainingBatches
from bench.data.dataset import open_dataset
from bench.data.pixels import DecodedFile, PixelSource, open_pixels
from bench.device.process_settings import disable_malloc_trim
from bench.evaluation.coco import evaluate
from tests import tiny
from tests.benchmarks.split_builders import made_split

COUNTS = (100, 1000, 10_000)
ROUNDS = 5
STEPS, BATCH = 20, 16
WIDTH, HEIGHT = 320, 240


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """COCO data sets by their number of images: different JPEGs with eight boxes each."""
    rng = np.random.default_rng(0)
    made = {}
    for count in COUNTS:
        folder = tmp_path_factory.mktemp(f"of{count}")
        (folder / "images").mkdir()
        for number in range(count):
            noise = Pillow.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
            picture = noise.resize((WIDTH, HEIGHT), Pillow.Resampling.BICUBIC).filter(ImageFilter.SHARPEN)
            picture.save(folder / "images" / f"{number}.jpg", quality=90)
        content = {
            "images": [
                {"id": number, "file_name": f"{number}.jpg", "width": WIDTH, "height": HEIGHT}
                for number in range(count)
            ],
            "annotations": [
                {"id": 8 * number + place, "image_id": number, "category_id": place % 4 + 1, "iscrowd": 0}
                | {"bbox": [20 + 30 * place, 40, 40, 60 + 10 * place], "area": 40 * (60 + 10 * place)}
                for number in range(count)
                for place in range(8)
            ],
            "categories": [{"id": label, "name": f"class {label}"} for label in range(1, 5)],
        }
        (folder / "annotations.json").write_text(json.dumps(content))
        made[count] = folder
    return made


def report_growth(benchmark: BenchmarkFixture, what: str, seconds: dict[int, list[float]]) -> None:
    """Print and store the median time per image, and its growth with the number of images."""
    each = {count: 1000 * statistics.median(values) for count, values in seconds.items()}
    growth = {count: value / each[COUNTS[0]] - 1 for count, value in each.items()}
    benchmark.extra_info |= {"ms_per_image": each, "growth": growth}
    medians = ", ".join(f"{count}: {each[count]:.3f} ms ({100 * growth[count]:+.0f}%)" for count in COUNTS)
    print(f"{what}, per image of {medians}")


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@pytest.mark.benchmark(group="time per image")
def test_opening_the_data(benchmark: BenchmarkFixture, folders: dict[int, Path], tmp_path: Path) -> None:
    """Reading, decoding once, checks, near-duplicates and the split."""
    seconds: dict[int, list[float]] = {count: [] for count in COUNTS}

    def once() -> None:
        for count, folder in folders.items():
            cache = tmp_path / f"{count}-{len(seconds[count])}"
            seconds[count].append(timed(partial(open_dataset, f"coco:{folder}", cache=cache, workers=2)) / count)

    benchmark.pedantic(once, rounds=1, iterations=1)
    report_growth(benchmark, "opening", seconds)


@pytest.mark.parametrize("decoded", [True, False], ids=["decoded once", "decoded on demand"])
@pytest.mark.benchmark(group="time per image")
def test_training_batches(benchmark: BenchmarkFixture, folders: dict[int, Path], tmp_path: Path, decoded: bool) -> None:
    """The same number of batches of each data set, interleaved."""
    augment = tiny.specification().training.augment
    makers: dict[int, TrainingBatches] = {}
    for count, folder in folders.items():
        data = open_dataset(f"coco:{folder}", cache=tmp_path, workers=2)
        pixels: PixelSource = open_pixels(data.pixels if decoded else None, data.index)
        assert isinstance(pixels, DecodedFile) == decoded
        fill = (127.0, 127.0, 127.0)
        makers[count] = TrainingBatches(
            data.index, pixels, augment, seed=0, batch=BATCH, size=300, fill=fill, workers=2
        )
    seconds: dict[int, list[float]] = {count: [] for count in COUNTS}

    def once() -> None:
        for round_ in range(ROUNDS):
            for count, maker in makers.items():
                stream = maker.steps(round_ * STEPS, (round_ + 1) * STEPS)
                seconds[count].append(timed(partial(list, stream)) / (STEPS * BATCH))

    benchmark.pedantic(once, rounds=1, iterations=1)
    report_growth(benchmark, "training views", seconds)


@pytest.mark.benchmark(group="time per image")
def test_evaluation(benchmark: BenchmarkFixture) -> None:
    """AP and all counts, with 100 detections per image; freed memory stays with the process."""
    disable_malloc_trim()
    made = {count: made_split(images=count, classes=20, each=100) for count in COUNTS}
    seconds: dict[int, list[float]] = {count: [] for count in COUNTS}

    def once() -> None:
        for _ in range(ROUNDS):
            for count, (index, detections) in made.items():
                seconds[count].append(timed(partial(evaluate, index, detections)) / count)

    benchmark.pedantic(once, rounds=1, iterations=1)
    report_growth(benchmark, "evaluation", seconds)
