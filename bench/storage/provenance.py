"""The software and hardware that a figure comes from."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.storage.records import read_json
from bench.storage.run_folder import ENVIRONMENT, RECORD, cell_folders

COMPUTING = ("torch", "torchvision", "timm", "pycocotools", "numba", "numpy", "pillow")  # packages that affect figures
PACKAGES = (*COMPUTING, "scipy", "pandas", "joblib")
REPORTING = frozenset({"analysis", "report", "diagnosis", "compare"})  # rooms of `bench` that do not affect figures
SOURCES = Path(__file__).resolve().parents[2]


def environment(device: Mapping[str, Any]) -> dict[str, Any]:
    """Versions of the software, and the description of the `device`."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": dict(device),
        "code": code_version(),
        "sources": sources_version(),
    }


def code_version() -> str:
    """The commit, and a hash of the sources if they differ from it or there is no git repository."""
    try:
        top = Path(_git("rev-parse", "--show-toplevel")).resolve()
        if top != SOURCES.resolve():  # the repository of another project around this one
            return f"sources {_hash_of_sources()}"
        commit = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", "*.py")
    except (OSError, subprocess.SubprocessError):
        return f"sources {_hash_of_sources()}"
    return f"commit {commit}" + (f" changed, sources {_hash_of_sources()}" if changed else "")


def sources_version() -> str:
    """Hash of the sources that affect figures; commits that change only other files leave it as it is."""
    return f"sources {_hash_of_sources(without=REPORTING)}"


def software_changes(run: Path) -> list[str]:
    """One line for each difference between the current software and the software that computed the cells of `run`.

    Compares the packages in `COMPUTING` and the sources of this program, except `REPORTING`.
    """
    records = [read_json(folder / RECORD) for folder in cell_folders(run)]
    environments = [
        record.get("environment") for record in records if isinstance(record, dict) and record.get("status") == "done"
    ]
    if any(any(folder.glob("checkpoint*.pt")) for folder in cell_folders(run)):
        environments.append(read_json(run / ENVIRONMENT))  # a half-trained cell has no record yet
    before = [each for each in environments if isinstance(each, dict)]
    current = {name: _version(name) for name in COMPUTING} | {"sources": sources_version()}
    lines = []
    for name, now in current.items():
        values = [
            each.get("sources") if name == "sources" else (each.get("packages") or {}).get(name) for each in before
        ]
        others = dict.fromkeys(str(value) for value in values if value is not None and value != now)
        if others:
            lines.append(f"{'this program' if name == 'sources' else name}: was {' and '.join(others)}, is {now}")
    return lines


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(SOURCES), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.strip()


def _hash_of_sources(without: frozenset[str] = frozenset()) -> str:
    digest = hashlib.sha256()
    for folder in ("bench", "variants"):
        for path in sorted((SOURCES / folder).rglob("*.py")):
            name = path.relative_to(SOURCES)
            if name.parts[1] not in without:
                digest.update(name.as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
