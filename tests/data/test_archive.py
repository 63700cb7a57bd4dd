"""A .zip file is unpacked into the cache once, and nothing that it holds is written anywhere else."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.data import archive
from bench.data.archive import check_archive, unpacked
from bench.data.sources import check_source, read_source
from bench.errors import UserError


def entry(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.external_attr = mode << 16
    return made


def made(path: Path, *entries: tuple[zipfile.ZipInfo | str, bytes | str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries:
            file.writestr(name, content)
    return path


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_an_archive_is_unpacked_once(tmp_path: Path) -> None:
    path = made(tmp_path / "my set.zip", ("a/b.txt", "1"), ("__MACOSX/a/._b.txt", "2"), ("a/.DS_Store", "3"))
    folder = unpacked(path, tmp_path / "cache")
    assert folder.parent == tmp_path / "cache/unpacked" and folder.name.startswith("my-set-")
    assert files_below(folder) == ["a/b.txt"]
    (folder / "a/b.txt").write_text("seen")
    assert unpacked(path, tmp_path / "cache") == folder
    assert (folder / "a/b.txt").read_text() == "seen"
    made(path, ("a/b.txt", "another"))
    assert (unpacked(path, tmp_path / "cache") / "a/b.txt").read_text() == "another"


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "above the folder": (lambda path: made(path, ("../evil.txt", "x")), r"'\.\./evil\.txt' would be written outside"),
    "above, deeper": (lambda path: made(path, ("a/../../evil.txt", "x")), "would be written outside"),
    "absolute": (lambda path: made(path, ("/tmp/evil.txt", "x")), "would be written outside"),
    "backslashes": (lambda path: made(path, ("..\\evil.txt", "x")), "would be written outside"),
    "a drive": (lambda path: made(path, ("C:evil.txt", "x")), "would be written outside"),
    "a link": (lambda path: made(path, (entry("a", stat.S_IFLNK | 0o777), "/etc/passwd")), "'a' is a link"),
    "a pipe": (lambda path: made(path, (entry("a", stat.S_IFIFO | 0o644), "")), "neither a file nor a folder"),
    "a bomb": (lambda path: made(path, ("a.txt", bytes(archive.SMALL + 1))), "no data set of images does"),
    "a file and a folder": (lambda path: made(path, ("a", "x"), ("a/b", "y")), "cannot be unpacked"),
    "a long name": (lambda path: made(path, ("a" * 300, "x")), "cannot be unpacked"),
    "text": (lambda path: path.write_text("no archive"), r"cannot be read as a \.zip file"),
    "nothing": (lambda path: path.touch(), r"cannot be read as a \.zip file"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused_whole(case: str, tmp_path: Path) -> None:
    make, message = HOSTILE[case]
    path = tmp_path / "set.zip"
    make(path)
    with pytest.raises(UserError, match=message):
        read_source(str(path), cache=tmp_path / "cache")
    assert files_below(tmp_path) == ["set.zip"]
    assert not list(tmp_path.rglob("*.partial"))


def test_a_hostile_archive_is_refused_before_data_are_read(tmp_path: Path) -> None:
    path = made(tmp_path / "set.zip", ("../evil.txt", "x"))
    with pytest.raises(UserError, match="would be written outside"):
        check_source(f"voc:{path}")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "set.zip", ("a", "x"), ("a", "y"))
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpacked(path, tmp_path / "cache")


def test_a_damaged_archive_leaves_nothing(tmp_path: Path) -> None:
    path = made(tmp_path / "set.zip", ("a.txt", "words that are compressed, " * 40))
    content = bytearray(path.read_bytes())
    content[45:55] = bytes(10)
    path.write_bytes(content)
    check_archive(path)  # the table of contents is intact
    with pytest.raises(UserError, match="is damaged"):
        unpacked(path, tmp_path / "cache")
    assert not list((tmp_path / "cache/unpacked").iterdir())


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "set.zip", ("a.txt", "x"))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the table of contents
    path.write_bytes(content)
    with pytest.raises(UserError, match="is encrypted"):
        check_archive(path)


def test_more_entries_or_bytes_than_a_data_set_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(tmp_path / "set.zip", ("a", "x"), ("b", "y"))
    monkeypatch.setattr(archive, "MAX_ENTRIES", 1)
    with pytest.raises(UserError, match="has 2 entries, more than 1"):
        check_archive(path)
    monkeypatch.undo()
    monkeypatch.setattr(archive, "MAX_BYTES", 1)
    with pytest.raises(UserError, match="would become 2"):
        check_archive(path)


def test_an_archive_without_a_data_set_says_what_it_holds(tmp_path: Path) -> None:
    path = made(tmp_path / "set.zip", ("notes.md", "x"))
    with pytest.raises(UserError, match=r"It holds notes\.md"):
        read_source(str(path), cache=tmp_path / "cache")
