"""The knobs of the built-in scenes: their meanings and ranges."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields

from bench.errors import UserError


@dataclass(frozen=True, kw_only=True)
class SceneKnobs:
    """The appearance of the drawn shelves. Sizes "at 300" are in pixels after the warp to 300x300.

    images: number of images, one in four for validation. Image i does not depend on `images`.
    classes: number of classes, the first ones of `packages.PACKAGES`.
    small: approximate share of annotated objects smaller than 32 pixels (square root of the box area, at 300); it
        sets the distribution of the camera's distance.
    shapes: spread of the aspect ratios. 0: every object is square at 300; 0.5: natural proportions; 1: proportions
        squared, up to 1:5 and 5:1 at 300.
    occlusion: how often objects are occluded; 0: never.
    size: 0 for natural sizes; otherwise every object measures about `size` pixels (side of a square of equal area, at
        300) and `small` has no effect. With ``shapes=0,size=60`` the answer is known: one square prior of 60 pixels
        fits every object.
    seed: another seed gives another set of images.
    width, height: of the images, in pixels.

    Raises UserError if a value is out of range.
    """

    images: int = 320
    classes: int = 12
    small: float = 0.35
    shapes: float = 0.5
    occlusion: float = 0.25
    size: float = 0.0
    seed: int = 0
    width: int = 480
    height: int = 360

    def __post_init__(self) -> None:
        for name, (lowest, highest) in RANGES.items():
            value = getattr(self, name)
            if not lowest <= value <= highest and not (name == "size" and value == 0):
                zero = "0 or " if name == "size" else ""
                raise UserError(f"scenes: {name}={value} is not {zero}between {lowest:g} and {highest:g}")
        if not 0.4 <= self.width / self.height <= 2.5:
            raise UserError(
                f"scenes: images of {self.width}x{self.height} are too elongated; "
                "keep width / height between 0.4 and 2.5"
            )

    @classmethod
    def parse(cls, text: str) -> SceneKnobs:
        """Knobs from text such as ``"images=400,small=0.5"``; an empty text gives the defaults.

        The text may name one of `PRESETS`, which other knobs add to or override: ``"tiny,images=400"``.
        Raises UserError for an unknown or repeated knob and for a value that is not a number.
        """
        whole = {field.name: isinstance(field.default, int) for field in fields(cls)}
        given: dict[str, int | float] = {}
        preset = ""
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            if name in PRESETS and not equals:
                if preset:
                    raise UserError(f"scenes: {preset} and {name} are both presets in {text!r}; keep one of them")
                preset = name
                continue
            if name not in whole:
                near = difflib.get_close_matches(name, [*whole, *PRESETS], n=1, cutoff=0.4)
                known = f"the knobs are {', '.join(whole)}, and the presets {', '.join(PRESETS)}"
                raise UserError(f"scenes: there is no knob {name!r}; {f'did you mean {near[0]}?' if near else known}")
            if name in given:
                raise UserError(f"scenes: {name} is given twice in {text!r}; keep one of them")
            try:
                given[name] = int(value) if whole[name] else float(value)
            except (ValueError, OverflowError):
                wanted = "a whole number" if whole[name] else "a number"
                what = f"{value!r} is not {wanted}" if equals else "has no value"
                raise UserError(f"scenes: {name} {what}; write for example {name}={RANGES[name][1]:g}") from None
        given = PRESETS.get(preset, {}) | given
        if given.get("size") and "small" in given:
            raise UserError("scenes: size fixes the size of every object, so small has no effect; remove one of them")
        return cls(**given)  # type: ignore[arg-type]  # each value has the type of its field


# Sets with one planted cause of low AP, and one without any.
PRESETS: dict[str, dict[str, int | float]] = {
    "tall": {"shapes": 1.0},
    "tiny": {"size": 12.0},
    "occluded": {"occlusion": 1.0},
    "easy": {"shapes": 0.0, "size": 60.0, "occlusion": 0.0},
}
RANGES: dict[str, tuple[float, float]] = {
    "images": (4, 100_000),
    "classes": (2, 18),
    "small": (0.0, 0.85),
    "shapes": (0.0, 1.0),
    "occlusion": (0.0, 1.0),
    "size": (12.0, 120.0),
    "seed": (0, 2**31 - 1),
    "width": (160, 1920),
    "height": (160, 1920),
}
