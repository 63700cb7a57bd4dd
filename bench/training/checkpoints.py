"""Checkpoints with a checksum; the previous one is kept.

A file starts with a line that names its format and a line with the SHA-256 of the rest, which `torch.save` wrote. The
checksum reveals a power cut, a full disk or a truncated copy.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from bench.storage.atomic import replacing
from bench.storage.run_folder import previous_of

FORMAT = b"ssd-ablation checkpoint 2"  # nothing else is read


class DamagedCheckpoint(Exception):
    """A checkpoint that cannot be used; the message says why."""


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write `content` to `path` atomically; an existing checkpoint becomes the previous one.

    content: anything that `torch.load(weights_only=True)` reads.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    body = buffer.getbuffer()
    with replacing(path, previous=previous_of(path)) as file:
        file.write(FORMAT + b"\n" + hashlib.sha256(body).hexdigest().encode() + b"\n")
        file.write(body)


def read_checkpoint(path: Path, device: str) -> dict[str, Any]:
    """The content of a checkpoint, tensors on `device`. Nothing in the file is executed.

    Raises FileNotFoundError, or DamagedCheckpoint if the file is truncated, altered or of another format.
    """
    data = path.read_bytes()
    stated_format, _, rest = data.partition(b"\n")
    stated, _, body = rest.partition(b"\n")
    if not data:
        raise DamagedCheckpoint("it is empty")
    if stated_format != FORMAT:
        raise DamagedCheckpoint("it is not a checkpoint of this version")
    if hashlib.sha256(body).hexdigest().encode() != stated:
        raise DamagedCheckpoint(f"its {len(body)} bytes do not match its checksum")
    content: dict[str, Any] = torch.load(io.BytesIO(body), map_location=device, weights_only=True)
    return content


def latest_checkpoint(path: Path, device: str) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest intact checkpoint, or None, and a sentence about each damaged one."""
    damaged: list[str] = []
    for candidate in (path, previous_of(path)):
        try:
            content = read_checkpoint(candidate, device)
        except FileNotFoundError:
            continue
        except (DamagedCheckpoint, OSError) as error:
            damaged.append(f"{candidate.name} is damaged: {error}")
            continue
        return content, [f"{sentence}; resumed from step {content['step']} instead" for sentence in damaged]
    return None, [f"{sentence}; there is no other, so training started again" for sentence in damaged]


def remove_checkpoints(path: Path) -> None:
    """Delete the checkpoint and the one before."""
    path.unlink(missing_ok=True)
    previous_of(path).unlink(missing_ok=True)
