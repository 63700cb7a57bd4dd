"""Every kind of image file decodes to the colours of an image viewer, or raises an error that names the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from bench.data.decode import IMAGE_SUFFIXES, MAX_PIXELS, ImageError, decode, decode_image, header_size
from bench.errors import UserError
from tests.traps import EPS, ghostscript_trap

ORIENTATION_TAG = 0x0112


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def halves(left: float, right: float, dtype: type) -> NDArray[np.generic]:
    """(8, 16) values: one on the left half, another on the right."""
    values: NDArray[np.generic] = np.zeros((8, 16), dtype=dtype)
    values[:, :8], values[:, 8:] = left, right
    return values


def test_rgb_is_unchanged_and_writable(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    image = decode_image(save(tmp_path / "a.png", Image.fromarray(pixels)))
    assert np.array_equal(image.pixels, pixels)
    assert image.conversions == ()
    image.pixels[0, 0] = 0


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_is_rescaled_not_saturated(tmp_path: Path, suffix: str) -> None:
    image = Image.fromarray(halves(0x4000, 0xFFFF, np.uint16))
    decoded = decode_image(save(tmp_path / f"a.{suffix}", image))
    assert decoded.pixels[0, 0].tolist() == [64, 64, 64]
    assert decoded.pixels[0, 15].tolist() == [255, 255, 255]
    assert decoded.conversions == ("deep-grey-image",)


def test_sixteen_bit_pgm_is_rescaled(tmp_path: Path) -> None:
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 16 8 65535\n" + halves(0x4000, 0xFFFF, np.uint16).astype(">u2").tobytes())
    assert decode(path)[0, [0, 15], 0].tolist() == [64, 255]


@pytest.mark.parametrize(
    ("left", "right", "dtype", "expected"),
    [
        (0.25, 1.0, np.float32, [64, 255]),
        (64.0, 255.0, np.float32, [64, 255]),
        (0.0, 65535.0, np.float32, [0, 255]),
        (float("nan"), 1.0, np.float32, [0, 255]),
        (-5.0, 1.0, np.float32, [0, 255]),
        (64, 255, np.int32, [64, 255]),
        (0x4000, 0xFFFF, np.int32, [64, 255]),
        (2**29, 2**31 - 1, np.int32, [64, 255]),
    ],
)
def test_deep_tiff_is_rescaled_by_its_smallest_usual_range(
    tmp_path: Path, left: float, right: float, dtype: type, expected: list[int]
) -> None:
    path = save(tmp_path / "a.tif", Image.fromarray(halves(left, right, dtype)))
    assert decode(path)[0, [0, 15], 0].tolist() == expected


def test_hidden_colours_stay_hidden(tmp_path: Path) -> None:
    rgba = np.zeros((8, 16, 4), dtype=np.uint8)
    rgba[:, :8] = (255, 0, 0, 0)
    rgba[:, 8:] = (0, 0, 200, 255)
    decoded = decode_image(save(tmp_path / "a.png", Image.fromarray(rgba)))
    assert decoded.pixels[0, 0].tolist() == [255, 255, 255]
    assert decoded.pixels[0, 15].tolist() == [0, 0, 200]
    assert decoded.conversions == ("alpha-image",)
    half = Image.fromarray(np.full((8, 16, 2), (0, 128), dtype=np.uint8), mode=None)
    assert decode(save(tmp_path / "la.png", half))[0, 0].tolist() == [127, 127, 127]


@pytest.mark.parametrize("transparent", [False, True])
def test_palettes_with_and_without_transparency(tmp_path: Path, transparent: bool) -> None:
    image = Image.fromarray(halves(0, 1, np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    options: dict[str, object] = {"transparency": 0} if transparent else {}
    decoded = decode_image(save(tmp_path / "a.png", image, **options))
    assert decoded.pixels[0, 0].tolist() == ([255] * 3 if transparent else [10, 20, 30])
    assert decoded.pixels[0, 15].tolist() == [200, 100, 50]
    assert decoded.conversions == ("palette-image",)


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_the_transparent_colour_becomes_white(tmp_path: Path, mode: str) -> None:
    grey = halves(0, 0x80, np.uint8)
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    key: object = (0, 0, 0) if mode == "RGB" else 0
    decoded = decode_image(save(tmp_path / "a.png", image, transparency=key))
    assert decoded.pixels[0, [0, 15]].tolist() == [[255] * 3, [128] * 3]
    assert decoded.conversions == ("alpha-image",)


@pytest.mark.parametrize(("mode", "kind"), [("L", "grey-image"), ("1", "one-bit-image")])
def test_grey_and_one_bit(tmp_path: Path, mode: str, kind: str) -> None:
    image = Image.fromarray(halves(0, 255, np.uint8)).convert(mode)
    decoded = decode_image(save(tmp_path / "a.png", image))
    assert decoded.pixels[0, [0, 15]].tolist() == [[0] * 3, [255] * 3]
    assert decoded.conversions == (kind,)


def test_cmyk_colours_are_right_with_and_without_adobe_marker(tmp_path: Path) -> None:
    yellow = Image.new("CMYK", (16, 16), (0, 0, 255, 0))
    adobe = save(tmp_path / "adobe.jpg", yellow, quality=100)
    data = adobe.read_bytes()
    marker = data.index(b"\xff\xee")
    length = int.from_bytes(data[marker + 2 : marker + 4], "big")
    assert data[marker + 4 : marker + 9] == b"Adobe"
    # Adobe's programs store CMYK inverted and say so by their marker; without it, it is stored as it is.
    inverted = save(tmp_path / "inverted.jpg", Image.new("CMYK", (16, 16), (255, 255, 0, 255)), quality=100)
    plain = tmp_path / "plain.jpg"
    inverted_data = inverted.read_bytes()
    assert inverted_data[marker : marker + 2] == b"\xff\xee"
    plain.write_bytes(inverted_data[:marker] + inverted_data[marker + 2 + length :])
    for path in (adobe, plain):
        decoded = decode_image(path)
        assert np.abs(decoded.pixels[8, 8].astype(int) - (255, 255, 0)).max() <= 4, path
        assert decoded.conversions == ("cmyk-image",)


def turned(path: Path, orientation: int, size: tuple[int, int] = (40, 20)) -> Path:
    """A picture whose stored top left corner is red."""
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    pixels[: size[1] // 2, : size[0] // 2] = (255, 0, 0)
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    Image.fromarray(pixels).save(path, exif=exif, quality=95)
    return path


# Where the stored top left corner belongs, as (row, column) of the upright picture: EXIF 2.32, table 6.
CORNERS = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied_if_the_size_then_matches(tmp_path: Path, orientation: int, suffix: str) -> None:
    path = turned(tmp_path / f"a.{suffix}", orientation)
    upright = (20, 40) if orientation >= 5 else (40, 20)
    assert header_size(path) == upright
    for max_side in (None, 20):
        pixels = decode(path, expected_size=upright, max_side=max_side)
        scale = 2 if max_side else 1
        assert pixels.shape == (upright[1] // scale, upright[0] // scale, 3)
        assert pixels[CORNERS[orientation]][0] > 200
        corners = [pixels[row, column, 0] > 128 for row in (0, -1) for column in (0, -1)]
        assert sum(corners) == 1


def test_annotations_of_unrotated_pixels_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="remove the orientation tag") as caught:
        decode(turned(tmp_path / "a.jpg", 6), expected_size=(40, 20))
    assert caught.value.kind == "exif-disagrees"


def test_a_size_mismatch_names_both_sizes(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.new("RGB", (40, 20)))
    with pytest.raises(UserError, match=r"a\.png: it has 40x20 pixels, the annotation says 41x20"):
        decode(path, expected_size=(41, 20))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_truncated_files_are_named(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(noise))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    assert header_size(path) == (64, 64)
    for max_side in (None, 16):
        with pytest.raises(ImageError, match=rf"a\.{suffix}: it cannot be decoded completely") as caught:
            decode(path, max_side=max_side)
        assert caught.value.kind == "truncated-image"


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_files_that_are_not_images_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for read in (decode, header_size):
        with pytest.raises(ImageError, match=r"a\.jpg"):
            read(path)


@pytest.mark.parametrize("content", ["JPEG", "MPO", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM"])
@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_a_file_may_be_in_another_format_than_its_suffix_names(tmp_path: Path, content: str, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", Image.new("RGB", (16, 8), "white"), format=content)
    assert decode(path).tolist() == np.full((8, 16, 3), 255).tolist()


@pytest.mark.parametrize("read", [decode, header_size])
@pytest.mark.parametrize("suffix", [".jpg", ".eps"])
def test_no_other_program_sees_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object], suffix: str
) -> None:
    started = ghostscript_trap(tmp_path, monkeypatch)
    path = tmp_path / f"3{suffix}"
    path.write_bytes(EPS)
    with pytest.raises(ImageError, match="not an image in one of the formats") as caught:
        read(path)
    assert caught.value.kind == "unreadable-image"
    assert not started.exists()


@pytest.mark.parametrize("form", ["JPEG2000", "ICO", "TGA", "PCX"])
def test_a_format_that_no_suffix_names_is_refused(tmp_path: Path, form: str) -> None:
    path = save(tmp_path / "a.png", Image.new("RGB", (16, 16)), format=form)
    with pytest.raises(ImageError, match="not an image in one of the formats JPEG, PNG, BMP") as caught:
        decode(path)
    assert caught.value.kind == "unreadable-image"


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="the file does not exist"):
        decode(tmp_path / "a.jpg")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [14_200, 60_000])
def test_decompression_bombs_are_rejected_before_decoding(tmp_path: Path, side: int) -> None:
    path = tmp_path / "a.pgm"
    path.write_bytes(f"P5 {side} {side} 255\n".encode())  # a header only
    assert side * side > MAX_PIXELS
    with pytest.raises(ImageError, match="more than 200 megapixels") as caught:
        decode(path)
    assert caught.value.kind == "oversized-image"


@given(width=st.integers(1, 90), height=st.integers(1, 90), max_side=st.integers(1, 100))
def test_max_side_limits_the_longer_side(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, max_side: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jpg"
    Image.new("RGB", (width, height), (90, 120, 150)).save(path)
    reduced_height, reduced_width, _ = decode(path, max_side=max_side).shape
    assert max(reduced_width, reduced_height) == min(max_side, max(width, height))
    scale = min(1.0, max_side / max(width, height))
    assert abs(reduced_width - width * scale) <= 1
    assert abs(reduced_height - height * scale) <= 1


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_reduction_is_antialiased(tmp_path: Path, suffix: str) -> None:
    checks = np.indices((512, 512)).sum(axis=0) % 2 * 255
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(checks.astype(np.uint8)).convert("RGB"))
    reduced = decode(path, max_side=50).astype(int)
    # Picking pixels would keep black and white; averaging gives the grey between them.
    assert np.abs(reduced - 127).max() <= 12


def test_reduced_jpeg_is_close_to_the_reduced_original(shared_data: Path) -> None:
    path = min((shared_data / "coco-mini" / "images").iterdir())
    full = decode(path)
    longer = max(full.shape[:2]) // 4
    width, height = (round(side * longer / max(full.shape[:2])) for side in full.shape[1::-1])
    oracle = np.asarray(Image.fromarray(full).resize((width, height), Image.Resampling.BOX), dtype=float)
    assert np.abs(decode(path, max_side=longer).astype(float) - oracle).mean() < 4
