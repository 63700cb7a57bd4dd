"""Checkpoints of a training: whole or detected as damaged, and the one before always at hand.

A file begins with a line that names its form and one with the SHA-256 of all that follows, which is what
`torch.save` writes. A disk that lost power or filled up, or a copy that broke off, is found by it.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from bench.storage.atomic import replacing

FORM = b"ssd-ablation checkpoint 2"  # newest form; anything else is not read


class DamagedCheckpoint(Exception):
    """A checkpoint that cannot be used; the message says why."""


def previous_of(path: Path) -> Path:
    """Where the checkpoint before the one at `path` lies."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write `content` to `path`, whole or not at all; what was there becomes the previous checkpoint.

    content: tensors, numbers, strings and containers of them: what `torch.load(weights_only=True)` reads.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    body = buffer.getbuffer()
    with replacing(path, previous=previous_of(path)) as file:
        file.write(FORM + b"\n" + hashlib.sha256(body).hexdigest().encode() + b"\n")
        file.write(body)


def read_checkpoint(path: Path, device: str) -> dict[str, Any]:
    """The content of a checkpoint, tensors on `device`; nothing in the file is executed.

    Raises FileNotFoundError, or DamagedCheckpoint where the file is torn, altered or of another form.
    """
    data = path.read_bytes()
    form, _, rest = data.partition(b"\n")
    stated, _, body = rest.partition(b"\n")
    if not data:
        raise DamagedCheckpoint("it is empty")
    if form != FORM:
        raise DamagedCheckpoint("it does not begin as a checkpoint of this version does")
    if hashlib.sha256(body).hexdigest().encode() != stated:
        raise DamagedCheckpoint(f"the checksum of its {len(body)} bytes is not the one it states")
    content: dict[str, Any] = torch.load(io.BytesIO(body), map_location=device, weights_only=True)
    return content


def latest_checkpoint(path: Path, device: str) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest checkpoint that is whole, None without one; and a sentence about each that is not."""
    damaged: list[str] = []
    for candidate in (path, previous_of(path)):
        try:
            content = read_checkpoint(candidate, device)
        except FileNotFoundError:
            continue
        except (DamagedCheckpoint, OSError) as error:
            damaged.append(f"{candidate.name} is damaged: {error}")
            continue
        return content, [f"{sentence}; went on from step {content['step']} instead" for sentence in damaged]
    return None, [f"{sentence}; there is no other, so it was trained from the start" for sentence in damaged]


def remove_checkpoints(path: Path) -> None:
    """Delete the checkpoint and the one before."""
    path.unlink(missing_ok=True)
    previous_of(path).unlink(missing_ok=True)
