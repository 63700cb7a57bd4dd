"""The log of a cell: JSON lines, appended while it runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from bench.errors import writing
from bench.storage.atomic import replacing
from bench.storage.records import read_log


class CellLog:
    """Appends lines to a cell's log, which survives restarts of the cell."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._end_torn_line()

    def write(self, **line: Any) -> None:
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def touch(self) -> None:
        """Show that the cell is alive without writing a line; see `scheduler.supervise`."""
        os.utime(self.path)

    def cut_after(self, step: int) -> None:
        """Delete the lines of later steps: a cell that resumes from a checkpoint writes them again."""
        lines = list(read_log(self.path))
        earlier = [line for line in lines if line.get("step", 0) <= step]
        if len(earlier) < len(lines):
            with replacing(self.path) as file:
                file.write("".join(f"{json.dumps(line)}\n" for line in earlier).encode())

    def _end_torn_line(self) -> None:
        """End the half line that a killed writer may have left, so that it does not spoil the next one."""
        with writing(self.path), self.path.open("ab+") as file:
            size = file.tell()
            file.seek(max(0, size - 1))
            if file.read(1) not in (b"", b"\n"):
                file.write(b"\n")
