"""The photometric kernel equals the plain function up to rounding."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.cpu.photometric import photometric as kernel
from bench.data.augment import Photometric, draw_photometric, photometric
from bench.device import fast_paths
from bench.spec import AugmentSpec

FILL = np.array((10.0, 20.0, 30.0), dtype=np.float32)
ROUNDING = 1e-3  # of 255


def pictures(count: int) -> NDArray[np.uint8]:
    """Noise, and grey, black and white pixels, whose hue is undefined."""
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    images[::4] = images[::4, :, :, :1]
    images[0, :8], images[0, 8:16] = 0, 255
    return images


@pytest.mark.parametrize("inside", [(0, 0, 32, 32), (4, 8, 30, 20), (0, 0, 0, 0)])
def test_the_kernel_equals_the_plain_function(inside: tuple[int, int, int, int]) -> None:
    generator, largest = np.random.default_rng(1), 0.0
    for image in pictures(200):
        draws = draw_photometric(generator, AugmentSpec())
        difference = np.abs(kernel(image, draws, inside, FILL) - photometric(image, draws, inside, FILL))
        largest = max(largest, float(difference.max()))
    print(f"largest difference from torch: {largest:.1e} of 255")
    assert largest < ROUNDING


def test_the_kernel_runs_only_with_fast_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    image, whole = pictures(1)[0], (0, 0, 32, 32)
    draws = Photometric(brightness=20.0, contrast=1.0, saturation=1.5, hue=0.1, contrast_first=True)
    calls: list[int] = []
    monkeypatch.setattr("bench.cpu.loops.distortion.distort", lambda *_: calls.append(1))
    photometric(image, draws, whole, FILL)
    assert not calls
    fast_paths.enable(True)
    try:
        photometric(image, draws, whole, FILL)
    finally:
        fast_paths.enable(False)
    assert calls
