"""Decode image files to RGB pixels, correctly for every kind of file found in data sets.

Careless conversion turns 16-bit greys white, shows the hidden colours of transparent pixels, inverts CMYK, and ignores
EXIF rotation, so that boxes no longer fit. Here each case has a rule, and the caller learns which rule was applied, so
that the preflight can count it.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from bench.errors import UserError

# By suffix, the formats that are opened. A file may be in another one of them than its suffix names. Pillow knows more,
# among them EPS, for which it starts Ghostscript.
FORMAT_OF_SUFFIX = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".gif": "GIF",
    ".ppm": "PPM",
    ".pgm": "PPM",
}
IMAGE_SUFFIXES = tuple(FORMAT_OF_SUFFIX)
IMAGE_FORMATS = tuple(dict.fromkeys(FORMAT_OF_SUFFIX.values()))

# 600 MB of RGB: more than any camera produces, less than what exhausts a laptop.
MAX_PIXELS = 200_000_000
# PIL raises only at twice its limit, and our cap must not depend on PIL's version.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS

ORIENTATION_TAG = 0x0112
# EXIF 2.32, section 4.6.4: the operation that turns the stored pixels upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SWAPS_SIDES = frozenset({5, 6, 7, 8})


class ImageError(UserError):
    """An image file that cannot be used: `kind` (a stable name), `what` was found, `remedy`."""

    def __init__(self, path: Path, kind: str, what: str, remedy: str) -> None:
        super().__init__(f"{path}: {what}. What to do: {remedy}.")
        self.kind = kind
        self.what = what
        self.remedy = remedy


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """pixels: (H, W, 3) uint8 RGB, upright. conversions: those applied, e.g. ("cmyk-image",)."""

    pixels: NDArray[np.uint8]
    conversions: tuple[str, ...]


def decode(
    path: Path, *, expected_size: tuple[int, int] | None = None, max_side: int | None = None
) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB pixels of an image file; see `decode_image`."""
    return decode_image(path, expected_size=expected_size, max_side=max_side).pixels


def decode_image(
    path: Path, *, expected_size: tuple[int, int] | None = None, max_side: int | None = None
) -> DecodedImage:
    """Decode an image file completely to RGB and report the conversions applied.

    Transparent pixels are composited on white, as in a browser. 16-bit greys are divided by 257, integer and float
    greys by the range of their format (`_grey_range`). The EXIF orientation is applied, colour profiles are not:
    detectors are trained on pixels as stored.

    expected_size: annotated width and height of the upright image.
    max_side: maximum length of the longer side in pixels; larger images are reduced with antialiasing (JPEG partly
        during decoding). The caller must scale the boxes.
    Raises ImageError (a UserError) naming the file if it is missing, not an image, truncated, above MAX_PIXELS, or of
    another size than expected.
    """
    try:
        with _open(path) as image:
            orientation = _orientation(image)
            _check_size(path, image, orientation, expected_size)
            stored_size = image.size
            target = _reduced(stored_size, max_side)
            if target != stored_size:
                image.draft(image.mode, target)
            image.load()
            rgb, conversions = _to_rgb(image)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # on corrupt bytes decoders raise anything from struct.error to KeyError
        raise ImageError(
            path,
            "truncated-image",
            f"it cannot be decoded completely ({error})",
            "copy the file again from its source, or remove it together with its annotation",
        ) from error
    if rgb.size != target:
        rgb = rgb.resize(target, Image.Resampling.BILINEAR)
    if orientation in UPRIGHT:
        rgb = rgb.transpose(UPRIGHT[orientation])
        conversions = (*conversions, "exif-orientation")
    return DecodedImage(np.array(rgb), conversions)


def header_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels after EXIF orientation, read from the header only.

    Raises ImageError if the file is missing, is not an image, or is above MAX_PIXELS.
    """
    with _open(path) as image:
        width, height = image.size
        return (height, width) if _orientation(image) in SWAPS_SIDES else (width, height)


def _open(path: Path) -> Image.Image:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would block forever
            raise OSError("it is not a file")
        image = Image.open(path, formats=IMAGE_FORMATS)
    except FileNotFoundError as error:
        raise ImageError(
            path, "missing-image", "the file does not exist", "restore it, or remove its annotation"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _bomb(path, str(error)) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            path,
            "unreadable-image",
            f"its {path.stat().st_size} bytes are not an image in one of the formats {', '.join(IMAGE_FORMATS)}",
            "replace it with a JPEG or PNG file, or remove it together with its annotation",
        ) from error
    except (OSError, SyntaxError, ValueError, TypeError, EOFError) as error:
        raise ImageError(
            path,
            "unreadable-image",
            f"its header cannot be read ({error})",
            "check the file's permissions, or copy it again from its source",
        ) from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise _bomb(path, f"{image.width}x{image.height}")
    return image


def _bomb(path: Path, size: str) -> ImageError:
    return ImageError(
        path,
        "oversized-image",
        f"it has more than {MAX_PIXELS // 1_000_000} megapixels ({size})",
        "reduce it, or cut it into tiles, together with its boxes",
    )


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation still to be applied: 1 (none) to 8."""
    # PIL applies a TIFF's orientation itself, and to look for EXIF in a PNG without it would decode the whole file.
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # the image may be good despite a broken EXIF block
        return 1
    return value if isinstance(value, int) and value in UPRIGHT else 1


def _check_size(path: Path, image: Image.Image, orientation: int, expected_size: tuple[int, int] | None) -> None:
    width, height = image.size
    upright = (height, width) if orientation in SWAPS_SIDES else (width, height)
    if expected_size is None or upright == expected_size:
        return
    annotated = f"the annotation says {expected_size[0]}x{expected_size[1]}"
    if (width, height) == expected_size:
        raise ImageError(
            path,
            "exif-disagrees",
            f"its EXIF orientation ({orientation}) makes it {upright[0]}x{upright[1]}, {annotated}",
            "the boxes refer to the stored pixels: remove the orientation tag from the file",
        )
    raise ImageError(
        path,
        "size-disagrees",
        f"it has {upright[0]}x{upright[1]} pixels, {annotated}",
        "annotate this version of the image, or restore the one that was annotated",
    )


def _reduced(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    longer = max(size)
    if max_side is None or longer <= max_side:
        return size
    width, height = (max(1, round(side * max_side / longer)) for side in size)
    return width, height


def _to_rgb(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    mode = image.mode
    if "transparency" in image.info and mode in ("1", "L", "P", "RGB", "I;16"):
        kind = "palette-image" if mode == "P" else "alpha-image"
        return _on_white(_transparent(image)), (kind,)
    if mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        return _on_white(image), ("alpha-image",)
    if mode == "P" and image.palette is not None and image.palette.mode != "RGB":
        return _on_white(image), ("palette-image",)  # the palette has transparent colours
    if mode in ("I", "F") or mode.startswith("I;16"):
        return _rescaled(image, _grey_range(image)), ("deep-grey-image",)
    plain = _uninverted_cmyk(image) if mode == "CMYK" else image
    return plain.convert("RGB"), PLAIN_CONVERSIONS.get(mode, ("colour-space-image",))


PLAIN_CONVERSIONS = {
    "RGB": (),
    "L": ("grey-image",),
    "1": ("one-bit-image",),
    "P": ("palette-image",),
    "CMYK": ("cmyk-image",),
}


def _transparent(image: Image.Image) -> Image.Image:
    if image.mode != "I;16":
        return image.convert("RGBA")
    # The transparent colour is a 16-bit grey, so compare before rescaling.
    rgba = _rescaled(image, 65535).convert("RGBA")
    opaque = np.asarray(image) != image.info["transparency"]
    rgba.putalpha(Image.fromarray(opaque.astype(np.uint8) * 255))
    return rgba


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    background = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(background, rgba).convert("RGB")


def _uninverted_cmyk(image: Image.Image) -> Image.Image:
    # PIL inverts every CMYK JPEG, because Adobe's programs store them inverted. Files without Adobe's marker are not
    # inverted, so undo it.
    if image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        return Image.eval(image, lambda value: 255 - value)
    return image


def _grey_range(image: Image.Image) -> float:
    """The value of white in a grey image of mode I or F.

    It is 65535 in 16-bit modes, PNG and PGM (which PIL scales). Other formats (TIFF) do not state a range; use the
    smallest usual one that contains the image's values: 1 (float only), 255, 65535 or 2^31 - 1.
    """
    if image.mode.startswith("I;16") or image.format in ("PNG", "PPM"):
        return 65535
    values = np.asarray(image)
    highest = float(np.max(values, where=np.isfinite(values), initial=0.0))
    ranges = (1.0, 255.0, 65535.0, 2.0**31 - 1) if image.mode == "F" else (255.0, 65535.0, 2.0**31 - 1)
    return next((top for top in ranges if highest <= top), highest)


def _rescaled(image: Image.Image, white: float) -> Image.Image:
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=white, neginf=0.0)
    grey = np.clip(np.round(values * (255.0 / white)), 0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")
