"""Killed runs resume to the same end, bit for bit.

`make test-long` kills a run 25 times at random moments, 25 times at chosen file operations with a resume each time,
and once at each file operation of a run that restarts from the beginning.
"""

import random
import shutil
from pathlib import Path

import pytest

from experiments.config import Config
from experiments.runner import run
from tests.experiments.interrupted_runs import assert_same_run, execute
from tests.experiments.killed_programs import killed_after_a_save, killed_at

LATER = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 17, 20, 23, 26, 30, 34, 38, 43, 48, 54, 60, 67, 75, 84)
"""Numbers of file operations: the first ones of a run, and later ones in the middle of saves."""


def assert_same_end(output: Path, config: Config, whole: Path) -> None:
    execute(output, config)
    execute(whole, config)
    assert_same_run(output, whole)


@pytest.mark.parametrize("rounds", [1, pytest.param(25, marks=pytest.mark.long)])
def test_a_run_killed_at_random_moments_ends_the_same(tiny: str, tmp_path: Path, rounds: int) -> None:
    config = Config.from_settings(model=tiny, batch_plan=f"{10 * rounds}x64")
    moments = random.Random(rounds)  # noqa: S311 - a seed makes the moments
    for _ in range(rounds):
        assert killed_after_a_save(tmp_path / "run", config, moments.uniform(0.0, 0.5))
    assert_same_end(tmp_path / "run", config, tmp_path / "whole")


@pytest.mark.long
def test_a_run_killed_at_file_operations_between_saves_ends_the_same(tiny: str, tmp_path: Path) -> None:
    config = Config.from_settings(model=tiny, batch_plan="40x64")
    for operation in LATER:
        assert killed_at(tmp_path / "run", config, operation)
    assert_same_end(tmp_path / "run", config, tmp_path / "whole")


@pytest.mark.long
def test_a_short_run_killed_at_each_file_operation_ends_the_same(tiny: str, tmp_path: Path) -> None:
    """The run restarts for each operation, and is saved once during training."""
    config, output, operation = Config.from_settings(model=tiny, batch_plan="1x128"), tmp_path / "run", 0
    execute(tmp_path / "whole", config)
    while killed_at(output, config, operation):
        if (output / "result.json").exists():
            run.completed(output)
        else:
            execute(output, config)
        assert_same_run(output, tmp_path / "whole")
        shutil.rmtree(output)
        operation += 1
    assert operation > 25
