"""Contact sheets of images with their boxes, as stored and as training sees them.

They show at a glance most faults of annotations (boxes of another image, swapped axes, wrong classes) and of an
augmentation, which no number reveals.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from bench.data.batches import TrainingBatches, rows_of_step
from bench.data.drawing import draw_boxes, label_font
from bench.data.index import ImageIndex
from bench.data.pixels import open_pixels
from bench.spec import AugmentSpec
from bench.storage.atomic import replacing

TILES = 20
COLUMNS = 4
TILE = 480  # pixels; longest side of an image on the sheet
CAPTION, GAP = 20, 8
NETWORK = 300
# ImageNet's mean colour. A run's backbone may use another, which affects only the fill.
FILL = (123.675, 116.28, 103.53)


def write_sheets(folder: Path, index: ImageIndex, train: ImageIndex, pixels: Path | None) -> list[Path]:
    """Write sheet-images.png and sheet-training.png to `folder`; returns their paths.

    The first shows 20 images evenly spread over `index`. The second shows the first 20 augmented views of `train` with
    seed 0, made by the training pipeline. pixels: the file of decoded images, None to decode on demand.
    """
    sheets = {"sheet-images.png": image_sheet(index, pixels), "sheet-training.png": training_sheet(train, pixels)}
    for name, sheet in sheets.items():
        with replacing(folder / name) as file:
            sheet.save(file, format="PNG")
    return [folder / name for name in sheets]


def image_sheet(index: ImageIndex, pixels: Path | None) -> Image.Image:
    """A sheet of at most 20 whole images with all their boxes."""
    rows = np.unique(np.linspace(0, len(index) - 1, min(TILES, len(index))).round().astype(np.int64))
    source = open_pixels(pixels, index)
    fractions = index.fractions()
    tiles, captions = [], []
    for row in rows.tolist():
        own = slice(*index.offsets[row : row + 2])
        tile = _fitted(Image.fromarray(np.asarray(source[row])))
        hidden = _draw(tile, fractions[own], index.labels[own], index.crowd[own], index.classes)
        width, height = index.sizes[row].tolist()
        tiles.append(tile)
        captions.append(f"{Path(index.files[row]).name}, {width}×{height}, {_box_count(own.stop - own.start, hidden)}")
    return _sheet(tiles, captions)


def training_sheet(train: ImageIndex, pixels: Path | None) -> Image.Image:
    """A sheet of the first 20 augmented views of a training with seed 0, at the network's 300 pixels."""
    batches = TrainingBatches(
        train,
        open_pixels(pixels, train),
        AugmentSpec(),
        seed=0,
        batch=TILES,
        size=NETWORK,
        fill=FILL,
        workers=1,
    )
    images, targets = next(batches.steps(0, 1))
    shown = images.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    rows, _ = rows_of_step(0, batch=TILES, images=len(train), seed=0)
    tiles, captions = [], []
    for place, row in enumerate(rows.tolist()):
        labels, crowd = targets.labels[place].numpy(), targets.crowd[place].numpy()
        real = (labels > 0) | crowd  # the others are padding
        tile = _fitted(Image.fromarray(shown[place]))
        boxes = targets.boxes[place].numpy()[real].astype(np.float64)
        hidden = _draw(tile, boxes, labels[real] - 1, crowd[real], train.classes)
        tiles.append(tile)
        captions.append(f"{Path(train.files[row]).name}, {_box_count(int(real.sum()), hidden)}")
    return _sheet(tiles, captions)


def _draw(
    tile: Image.Image,
    fractions: NDArray[np.float64],
    labels: NDArray[np.integer],
    crowd: NDArray[np.bool_],
    classes: Sequence[str],
) -> int:
    """Draw boxes, given in fractions, on a tile; returns the number of names without room."""
    boxes = fractions * np.tile(np.array(tile.size), 2)
    pairs = list(zip(labels.tolist(), crowd.tolist(), strict=True))
    texts = ["crowd" if is_crowd else classes[label] for label, is_crowd in pairs]
    return draw_boxes(tile, boxes, texts, [label for label, _ in pairs])


def _fitted(picture: Image.Image) -> Image.Image:
    """The image resized to a longer side of TILE, so that lines and text have the same size on all tiles."""
    scale = TILE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _box_count(boxes: int, hidden: int) -> str:
    return f"{boxes} box{'' if boxes == 1 else 'es'}" + (f" ({hidden} without room for the name)" if hidden else "")


def _sheet(tiles: Sequence[Image.Image], captions: Sequence[str]) -> Image.Image:
    """Tiles in rows of four, each with its caption below; a row is as high as its highest tile."""
    grid = [range(start, min(start + COLUMNS, len(tiles))) for start in range(0, len(tiles), COLUMNS)]
    heights = [max(tiles[place].height for place in row) + CAPTION + GAP for row in grid]
    columns = min(COLUMNS, len(tiles))
    sheet = Image.new("RGB", (columns * (TILE + GAP) + GAP, sum(heights) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = label_font(12)
    top = GAP
    for row, height in zip(grid, heights, strict=True):
        for column, place in enumerate(row):
            left = GAP + column * (TILE + GAP)
            sheet.paste(tiles[place], (left, top))
            caption = captions[place]
            while draw.textlength(caption, font=font) > TILE and len(caption) > 1:
                caption = "…" + caption.lstrip("…")[1:]  # keep the end: the number of boxes
            draw.text((left, top + tiles[place].height + 2), caption, fill="black", font=font)
        top += height
    return sheet
