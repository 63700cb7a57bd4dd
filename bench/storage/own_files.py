"""Which folders this suite writes into, and what it deletes there.

A folder is ours if it is new or empty, or if it carries `MARKER`. Earlier versions wrote no marker: their folders are
recognised by a result. Every other folder is refused, because our files could overwrite a user's of the same name. In
our own folders a user's files stay: only cells of a plan and files of known names are deleted, all of them here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.errors import UserError, not_writable
from bench.storage.atomic import TEMPORARY, remove_abandoned, write_text
from bench.storage.reading import kind_of
from bench.storage.records import read_json, read_plan
from bench.storage.run_folder import (
    CELL_FILES,
    CELL_ID,
    CELLS,
    DIAGNOSIS,
    LOCK,
    MARKER,
    PREDICTIONS,
    PREFLIGHT,
    RUN_FILES,
    RUN_FOLDERS,
    THROUGHPUT,
    THUMBNAIL,
    THUMBNAILS,
    cell_folder,
    cell_folders,
    thumbnail_list,
)

MARK = "ssd-ablation made this folder. Its run_all.py writes into no other folder that holds files.\n"
# What identifies the results of earlier versions that are not runs: some of their entries
EARLIER_RESULTS = {
    PREFLIGHT: {"images_checked", "problems"},
    DIAGNOSIS: {"findings", "suspect_kinds"},
    THROUGHPUT: {"stages", "training_steps"},
}
SHOWN = 3  # files named in a refusal


@contextmanager
def output_folder(folder: Path) -> Iterator[None]:
    """Create the folder if necessary and mark it if it is empty; undo both if nothing is written into it.

    Raises UserError as `check_output` does, or if the folder cannot be created.
    """
    check_output(folder)
    created = create(folder)
    try:
        mark(folder)
        remove_abandoned_in(folder)
        yield
    finally:
        unmark_empty(folder)
        remove_empty(created)


def check_output(folder: Path) -> None:
    """Raise UserError if the folder holds files and is not ours, or if its plan.json is damaged or not ours.

    Also if something in it is a link or no file at all; see `check_entries`.
    """
    if not folder.is_dir():
        return  # creating it fails with the reason if it is a file
    check_entries(folder)
    plan = read_plan(folder)
    names = _files_of_results(folder)
    if plan is not None or not names or MARKER in names or _of_an_earlier_version(folder):
        return
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    raise UserError(
        f"{folder} holds files that this program did not write ({shown}), and it could overwrite them. Choose a new "
        "or empty folder: --out results/NAME"
    )


def check_entries(folder: Path) -> None:
    """Raise UserError if a file or folder of ours in a results folder is a link, a pipe, a socket or a device.

    Links in the results of a stranger could name any file of the user, to be shown in a report or overwritten. The
    folder itself may be a link, and so may files of other names.
    """
    for path in _own_entries(folder):
        refuse_foreign(path)


def refuse_foreign(path: Path) -> None:
    """Raise UserError if there is something at `path` that is neither a regular file nor a folder."""
    try:
        kind = kind_of(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if kind == "a link":
        raise UserError(
            f"{path} is a link. Results are neither read nor written through links, which may lead out of their "
            "folder: replace it by a copy of what it names, or remove it"
        )
    if kind not in ("", "a folder"):
        raise UserError(f"{path} is {kind}, not a file: remove it and repeat the command")


def _own_entries(folder: Path) -> Iterator[Path]:
    """The paths in a results folder that we may read or write, folders before what is in them."""
    yield from (folder / name for name in (*RUN_FILES, *RUN_FOLDERS, CELLS))
    for name in RUN_FOLDERS:
        yield from sorted((folder / name).glob("*"))
    for cell in sorted((folder / CELLS).glob("*")):
        if CELL_ID.fullmatch(cell.name):
            yield cell
            yield from (cell / name for name in CELL_FILES)


def remove_abandoned_in(folder: Path) -> None:
    """Delete the temporary files of killed processes in a results folder of ours."""
    for each in (folder, *(folder / name for name in RUN_FOLDERS), *cell_folders(folder)):
        remove_abandoned(each)


def create(folder: Path) -> list[Path]:
    """Create the folder and its parents; those that were missing, deepest first. Raises UserError if that fails."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_writable(folder, error) from error
    return missing


def remove_empty(created: list[Path]) -> None:
    """Remove the folders that are still empty. created: as returned by `create`."""
    for folder in created:
        with suppress(OSError):  # not empty
            folder.rmdir()


def mark(folder: Path) -> None:
    """Mark an empty folder as ours. One that holds results is recognised already; see `check_output`."""
    if not _files_of_results(folder):
        write_text(folder / MARKER, MARK)


def unmark_empty(folder: Path) -> None:
    """Remove the mark if there is nothing else in the folder but the lock."""
    with suppress(OSError):
        if {path.name for path in folder.iterdir()} <= {MARKER, LOCK}:
            (folder / MARKER).unlink(missing_ok=True)


def remove_cell(run: Path, cell_id: str) -> None:
    """Delete our files in a cell's folder, then the folder, unless it holds other files."""
    folder = cell_folder(run, cell_id)
    if folder.is_symlink() or not folder.is_dir():
        return
    for name in CELL_FILES:
        (folder / name).unlink(missing_ok=True)
    remove_abandoned(folder)
    remove_empty([folder])


def stored_thumbnails(run: Path) -> list[Path]:
    """The thumbnails that thumbnails.json lists; none if it is missing or damaged."""
    content = read_json(thumbnail_list(run))
    entries = content.get("thumbnails") if isinstance(content, dict) else None
    listed = entries if isinstance(entries, list) else []
    names = [str(entry.get("file")) for entry in listed if isinstance(entry, dict)]
    return [run / THUMBNAILS / name for name in names if THUMBNAIL.fullmatch(name)]


def remove_thumbnails(run: Path) -> None:
    """Delete the thumbnails of an earlier start of the run."""
    for path in (*stored_thumbnails(run), thumbnail_list(run)):
        path.unlink(missing_ok=True)


def _files_of_results(folder: Path) -> list[str]:
    """The names in a folder, but for what a start that was killed before its first result can have left."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:  # another start has just removed its empty folder
        return []
    return [name for name in names if name != LOCK and not TEMPORARY.fullmatch(name)]


def _of_an_earlier_version(folder: Path) -> bool:
    """Whether the folder holds the result of another command than the main job, or the predictions of a run."""
    for name, entries in EARLIER_RESULTS.items():
        content = read_json(folder / name)
        if isinstance(content, dict) and entries <= content.keys():
            return True
    return folder.name == PREDICTIONS and read_plan(folder.parent) is not None
