"""The photometric part by compiled loops is torch's."""

from __future__ import annotations

import numpy as np
import torch

from bench.cpu.photometric import distorted
from bench.data.augment import Photometric, distort, draw_photometric
from bench.data.batches import TrainingBatches
from bench.spec import AugmentSpec
from tests import tiny

SPEC = AugmentSpec()
FILL = (10.0, 20.0, 30.0)
ROUNDING = 1e-3  # of 255


def pictures(count: int) -> np.ndarray:
    """Noise, and greys, black and white, whose hue is undefined."""
    made = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    made[::4] = made[::4, :, :, :1]
    made[0, :8], made[0, 8:16] = 0, 255
    return made


def test_it_computes_what_torch_does() -> None:
    generator = np.random.default_rng(1)
    images, draws = pictures(200), [draw_photometric(generator, SPEC) for _ in range(200)]
    whole, fill = (0, 0, 32, 32), np.zeros(3, dtype=np.float32)
    ours = np.stack([distorted(image, each, whole, fill) for image, each in zip(images, draws, strict=True)])
    theirs = distort(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float(), draws)
    difference = np.abs(ours - theirs.permute(0, 2, 3, 1).numpy()).max()
    print(f"largest difference from torch: {difference:.1e} of 255")
    assert difference < ROUNDING


def test_outside_the_image_is_the_fill() -> None:
    fill = np.array(FILL, dtype=np.float32)
    bright = Photometric(brightness=20.0, contrast=1.0, saturation=1.5, hue=0.1, contrast_first=True)
    inside = np.zeros((32, 32), dtype=bool)
    inside[8:20, 4:30] = True
    made = distorted(pictures(1)[0], bright, (4, 8, 30, 20), fill)
    assert (made[~inside] == fill).all()
    assert not (made[inside] == fill).all(axis=1).any()
    assert (distorted(pictures(1)[0], bright, (0, 0, 0, 0), fill) == fill).all()


def test_batches_are_the_same_but_for_rounding() -> None:
    index, pixels = tiny.rectangles(5, empty=(1,))
    torchs, ours = (
        TrainingBatches(index, pixels, SPEC, seed=0, batch=3, size=300, fill=FILL, workers=2, cpu_kernels=compiled)
        for compiled in (False, True)
    )
    for (images, targets), (other, same) in zip(torchs.steps(0, 6), ours.steps(0, 6), strict=True):
        assert other.is_contiguous(memory_format=torch.channels_last)
        assert images.shape == other.shape
        assert images.dtype == other.dtype
        assert (images - other).abs().max() < ROUNDING
        assert torch.equal(targets.boxes, same.boxes)
        assert torch.equal(targets.labels, same.labels)
