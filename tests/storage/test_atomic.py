"""A file is complete, or as it was before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.storage.atomic import replacing, write_json


def test_invalid_json_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.json"
    write_json(path, {"a": [1, 2.5]})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": [1, 2.5]}


def test_an_interrupted_write_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(OSError, match="disk full"), replacing(path) as file:
        file.write(b"half")
        raise OSError("disk full")
    assert list(tmp_path.iterdir()) == []
    with replacing(path) as file:
        file.write(b"whole")
    assert path.read_bytes() == b"whole"
