"""What the options of the main job say before any data are read."""

from __future__ import annotations

import pytest

from bench.options import RunOptions
from bench.run.parsers import parse_options, run_parser


@pytest.mark.parametrize(
    ("words", "may_use"),
    [
        ([], True),
        (["--device", "cpu"], True),
        (["--device", "cuda"], False),
        (["--profile", "smoke"], False),
        (["--profile", "smoke", "--steps", "300"], True),
        (["--profile", "smoke", "--batch", "128"], True),
        (["--cpu-kernels", "off"], False),
        (["--profile", "smoke", "--cpu-kernels", "on"], True),
    ],
)
def test_whether_cells_may_use_cpu_kernels(words: list[str], may_use: bool) -> None:
    assert parse_options(RunOptions, run_parser(), words).may_use_cpu_kernels == may_use
