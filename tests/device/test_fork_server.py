"""The fork server has imported the modules of a cell, in whatever folder the command was started, and none of there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.traps import executed, set_traps

STARTED_ELSEWHERE = """
import sys
sys.path.insert(0, sys.argv[1])
from bench.device.fork_server import start_fork_server
if __name__ == "__main__":
    found = "import os, sys; os._exit(7 if 'bench.run.cell' in sys.modules else 3)"
    process = start_fork_server(cpu_kernels=False).Process(target=exec, args=(found,))
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""


@pytest.mark.skipif(sys.platform == "darwin", reason="forking is unsafe there")
def test_a_forked_process_has_everything_imported(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    script = tmp_path / "script.py"
    script.write_text(STARTED_ELSEWHERE)
    current = set_traps(tmp_path_factory.mktemp("current"))
    ended = subprocess.run([sys.executable, script, REPOSITORY], cwd=current, check=False)
    assert executed(current) == []
    assert ended.returncode == 7
