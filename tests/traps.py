"""Files that must not be executed: modules of the current folder, and Ghostscript, which Pillow starts for EPS."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import EpsImagePlugin

STANDARD = ("struct", "signal", "socket", "selectors", "sitecustomize", "usercustomize")
INSTALLED = ("numpy", "torch", "joblib", "PIL/__init__")
OURS = ("bench/__init__", "variants/__init__")
# An empty drawing of 96 x 80 points
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 96 80\n%%EndComments\nshowpage\n%%EOF\n"


def set_traps(folder: Path) -> Path:
    """Write modules named like those that our processes import; each leaves a file if executed. Returns the folder."""
    for name in (*STANDARD, *INSTALLED, *OURS):
        module = folder / f"{name}.py"
        module.parent.mkdir(exist_ok=True)
        module.write_text(f"open({str(module.with_suffix('.executed'))!r}, 'w').close()\n")
    return folder


def executed(folder: Path) -> list[str]:
    """The modules that were executed."""
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.executed"))


def ghostscript_trap(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make Pillow find a Ghostscript that does nothing but leave a file. Returns that file's path."""
    program, started = folder / "gs", folder / "gs.executed"
    program.write_text(f"#!/bin/sh\ntouch '{started}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # not looked for yet
    return started
