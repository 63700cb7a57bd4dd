"""Errors of the disk become sentences, and everything else stays a traceback."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bench.errors import NO_FOLDER, STORAGE, StorageError, explained, nearest, writing

pytestmark = pytest.mark.fast


def error_of(number: int, path: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), *([] if path is None else [path]))


@pytest.mark.parametrize("number", STORAGE, ids=errno.errorcode.get)
def test_a_disk_that_cannot_be_written_to_is_named_with_a_remedy(number: int) -> None:
    with pytest.raises(StorageError, match=r"^/a/b cannot be written: its .*\. \w+") as raised, writing(Path("/a/b")):
        raise error_of(number)
    assert isinstance(raised.value.__cause__, OSError)


def test_other_errors_pass_through() -> None:
    with pytest.raises(FileNotFoundError), writing(Path("/a/b")):
        raise error_of(errno.ENOENT)


def test_what_cannot_be_used_is_a_folder_or_a_storage_problem() -> None:
    assert "/a cannot be used: its disk is full" in explained(error_of(errno.ENOSPC, "/a"))
    assert "/a cannot be used: File name too long. Check the path" in explained(error_of(errno.ENAMETOOLONG, "/a"))
    for number in NO_FOLDER:
        assert "/a cannot be a folder" in explained(error_of(number, "/a"))


def test_an_error_without_a_file_is_about_the_output_or_a_bug() -> None:
    assert "the standard output cannot be used: its disk is full" in explained(error_of(errno.ENOSPC))
    for bug in (error_of(errno.ECONNREFUSED), OSError("of our own")):
        with pytest.raises(OSError, match=str(bug.strerror or "of our own")):
            explained(bug)


def test_the_most_similar_word_is_suggested() -> None:
    assert nearest("anchor", ["fpn", "anchors"]) == " (did you mean anchors?)"
    assert nearest("zzz", ["fpn", "anchors"]) == ""
