"""A specification made without torch."""

from __future__ import annotations

from bench.spec import Specification
from variants.baseline import baseline, training_of

SHAPES = tuple(((0.1, 0.2),) * count for count in (4, 6, 6, 6, 4, 4))


def specification() -> Specification:
    return baseline(
        classes=3,
        backbone="efficientnet_lite0",
        weights="none",
        weights_fingerprint="",
        priors=SHAPES,
        training=training_of("smoke", 8, scenes=False),
    )
