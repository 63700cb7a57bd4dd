"""Contact sheets: what the images look like with their boxes, as stored and as the training sees them.

Most faults of annotations (boxes of another image, exchanged axes, a class for another) and of an
augmentation are seen at a glance, and in no figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from bench.data.batches import TrainingBatches, rows_of_step
from bench.data.drawing import draw_boxes, letters
from bench.data.index import ImageIndex
from bench.data.pixels import open_pixels
from bench.spec import AugmentSpec
from bench.storage.atomic import replacing

TILES = 20
COLUMNS = 4
TILE = 480  # longest side of a picture on the sheet, pixels
CAPTION, GAP = 20, 8
NETWORK = 300
# ImageNet's mean colour: the backbone of a run may expect another, which is seen at the fill only
FILL = (123.675, 116.28, 103.53)


def write_sheets(folder: Path, index: ImageIndex, train: ImageIndex, pixels: Path | None) -> list[Path]:
    """Write sheet-images.png and sheet-training.png into `folder`; the files.

    The first shows 20 images evenly spread over `index`; the second the first 20 views of `train` that seed
    0 trains on, made by the pipeline that trains. pixels: the file of decoded images, if there is one.
    """
    sheets = {"sheet-images.png": image_sheet(index, pixels), "sheet-training.png": training_sheet(train, pixels)}
    for name, sheet in sheets.items():
        with replacing(folder / name) as file:
            sheet.save(file, format="PNG")
    return [folder / name for name in sheets]


def image_sheet(index: ImageIndex, pixels: Path | None) -> Image.Image:
    """The sheet of whole images with all their boxes; fewer tiles where there are fewer images."""
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
        captions.append(f"{Path(index.files[row]).name}, {width}×{height}, {_counted(own.stop - own.start, hidden)}")
    return _sheet(tiles, captions)


def training_sheet(train: ImageIndex, pixels: Path | None) -> Image.Image:
    """The sheet of the first 20 augmented views of a training with seed 0, at the network's 300 pixels."""
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
        real = (labels > 0) | crowd  # the others pad the batch
        tile = _fitted(Image.fromarray(shown[place]))
        boxes = targets.boxes[place].numpy()[real].astype(np.float64)
        hidden = _draw(tile, boxes, labels[real] - 1, crowd[real], train.classes)
        tiles.append(tile)
        captions.append(f"{Path(train.files[row]).name}, {_counted(int(real.sum()), hidden)}")
    return _sheet(tiles, captions)


def _draw(
    tile: Image.Image,
    fractions: NDArray[np.float64],
    labels: NDArray[np.integer],
    crowd: NDArray[np.bool_],
    classes: Sequence[str],
) -> int:
    """Boxes in fractions onto a tile; a crowd is called so. The number of names that found no room."""
    boxes = fractions * np.tile(np.array(tile.size), 2)
    pairs = list(zip(labels.tolist(), crowd.tolist(), strict=True))
    texts = ["crowd" if is_crowd else classes[label] for label, is_crowd in pairs]
    return draw_boxes(tile, boxes, texts, [label for label, _ in pairs])


def _fitted(picture: Image.Image) -> Image.Image:
    """The picture with its longer side at the tile's, so that lines and letters are as fine on all."""
    scale = TILE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _counted(boxes: int, hidden: int) -> str:
    return f"{boxes} box{'' if boxes == 1 else 'es'}" + (f" ({hidden} without room for the name)" if hidden else "")


def _sheet(tiles: Sequence[Image.Image], captions: Sequence[str]) -> Image.Image:
    """Tiles in rows of four, each with its caption beneath; a row is as high as its highest tile."""
    lines = [range(start, min(start + COLUMNS, len(tiles))) for start in range(0, len(tiles), COLUMNS)]
    heights = [max(tiles[place].height for place in line) + CAPTION + GAP for line in lines]
    columns = min(COLUMNS, len(tiles))
    sheet = Image.new("RGB", (columns * (TILE + GAP) + GAP, sum(heights) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = letters(12)
    top = GAP
    for line, height in zip(lines, heights, strict=True):
        for column, place in enumerate(line):
            left = GAP + column * (TILE + GAP)
            sheet.paste(tiles[place], (left, top))
            caption = captions[place]
            while draw.textlength(caption, font=font) > TILE and len(caption) > 1:
                caption = "…" + caption.lstrip("…")[1:]  # the end says the number of boxes
            draw.text((left, top + tiles[place].height + 2), caption, fill="black", font=font)
        top += height
    return sheet
