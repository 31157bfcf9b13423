"""A run of many steps needs no more memory than a run of few."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("steps", [504, pytest.param(5000, marks=pytest.mark.long)])
def test_memory_is_flat_from_a_tenth_of_a_run_to_its_end(tmp_path: Path, steps: int) -> None:
    command = [sys.executable, "-m", "tests.experiments.soak", str(steps), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    (first, early, arrays), (last, late, arrays_at_the_end) = json.loads(done.stdout.splitlines()[-1])
    assert last >= steps - 8
    assert late < 1.05 * early
    assert arrays_at_the_end - arrays < 64 + (last - first) / 10  # a save in progress holds up to 58
