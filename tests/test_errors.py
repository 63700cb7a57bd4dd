"""Errors of the disk become sentences, and everything else stays a traceback."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bench.errors import NO_FOLDER, STORAGE, StorageError, UserError, nearest, unusable, writing

pytestmark = pytest.mark.fast


def error_of(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", STORAGE, ids=errno.errorcode.get)
def test_a_disk_that_cannot_be_written_to_is_named_with_a_remedy(number: int) -> None:
    with pytest.raises(StorageError, match=r"^/a/b cannot be written: its .*\. \w+") as raised, writing(Path("/a/b")):
        raise error_of(number)
    assert isinstance(raised.value.__cause__, OSError)


def test_other_errors_pass_through() -> None:
    with pytest.raises(FileNotFoundError), writing(Path("/a/b")):
        raise error_of(errno.ENOENT)


def test_what_cannot_be_used_is_a_folder_or_a_storage_problem() -> None:
    assert "cannot be used: its disk is full" in str(unusable("/a", error_of(errno.ENOSPC)))
    for number in NO_FOLDER:
        error = unusable("/a", error_of(number))
        assert isinstance(error, UserError)
        assert "/a cannot be a folder" in str(error)


def test_the_most_similar_word_is_suggested() -> None:
    assert nearest("anchor", ["fpn", "anchors"]) == " (did you mean anchors?)"
    assert nearest("zzz", ["fpn", "anchors"]) == ""
