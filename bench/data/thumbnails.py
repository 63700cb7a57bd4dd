"""Thumbnails of a few validation images, stored with a run so that its page can show detections on them.

No other image data leave the data's folder; ``--no-images`` disables even these.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from bench.data.index import ImageIndex
from bench.data.pixels import open_pixels
from bench.storage.atomic import replacing, write_json
from bench.storage.run_folder import THUMBNAILS, thumbnail_list

MAX_IMAGES = 12
LONGEST_SIDE = 300  # pixels, as at the network
QUALITY = 80


def write_thumbnails(run: Path, val: ImageIndex, pixels: Path | None) -> list[Path]:
    """Write up to 12 images evenly spread over `val` as JPEG to ``thumbnails/`` in the run's folder.

    ``thumbnails.json`` lists them with image_id (as in ground_truth.json), file and scale (thumbnail pixels per
    original pixel). It is written first, so that `remove_thumbnails` finds the images of a killed start too. Returns
    the paths of the images. pixels: the file of decoded images, None to decode on demand.
    """
    rows = np.unique(np.linspace(0, len(val) - 1, min(MAX_IMAGES, len(val))).round().astype(np.int64))
    source = open_pixels(pixels, val)
    pictures, entries = [], []
    for row in rows.tolist():
        picture = Image.fromarray(np.asarray(source[row]))
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
        image_id, width = int(val.image_ids[row]), int(val.sizes[row, 0])
        pictures.append(picture)
        entries.append({"image_id": image_id, "file": f"{image_id}.jpg", "scale": picture.width / width})
    write_json(thumbnail_list(run), {"thumbnails": entries})
    files = [run / THUMBNAILS / str(entry["file"]) for entry in entries]
    for path, picture in zip(files, pictures, strict=True):
        with replacing(path) as file:
            picture.save(file, format="JPEG", quality=QUALITY, optimize=True)
    return files
