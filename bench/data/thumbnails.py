"""A few small pictures of the validation split, kept by a run so that its page can show what was found on them.

They are all of the images that leaves the data's own folder; ``--no-images`` keeps even these out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from bench.data.index import ImageIndex
from bench.data.pixels import open_pixels
from bench.storage.atomic import replacing, write_json

MOST = 12
LONGEST_SIDE = 300  # pixels: the size that the network sees
QUALITY = 80
FOLDER = "thumbnails"


def write_thumbnails(run: Path, val: ImageIndex, pixels: Path | None) -> list[Path]:
    """Up to 12 images evenly spread over `val` as JPEG in ``thumbnails/`` of the run's folder; the files.

    ``thumbnails.json`` lists them: image_id as in ground_truth.json, file, and scale, thumbnail pixels per
    pixel of the original image. pixels: the file of decoded images, if there is one.
    """
    rows = np.unique(np.linspace(0, len(val) - 1, min(MOST, len(val))).round().astype(np.int64))
    source = open_pixels(pixels, val)
    entries = []
    for row in rows.tolist():
        picture = Image.fromarray(np.asarray(source[row]))
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
        name = f"{int(val.image_ids[row])}.jpg"
        with replacing(run / FOLDER / name) as file:
            picture.save(file, format="JPEG", quality=QUALITY, optimize=True)
        entries.append(
            {"image_id": int(val.image_ids[row]), "file": name, "scale": picture.width / int(val.sizes[row, 0])}
        )
    write_json(run / FOLDER / "thumbnails.json", {"thumbnails": entries})
    return [run / FOLDER / str(entry["file"]) for entry in entries]


def remove_thumbnails(run: Path) -> None:
    """Take out what an earlier start of the run has kept."""
    for path in (run / FOLDER / "thumbnails.json", *(run / FOLDER).glob("*.jpg")):
        path.unlink(missing_ok=True)
