"""The trained state of a finished run is read only if it is the one that the run has saved."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from experiments.config import Config
from experiments.runner import run, sharpness_records
from experiments.sharpness import SharpnessSettings, measure_run, replay
from experiments.sharpness.measure_runs import measure_finished_run
from tests.experiments.finished_runs import finished
from tests.experiments.interrupted_runs import copied
from tests.experiments.test_refusals import DAMAGES, flip, refused

QUICK = SharpnessSettings(steps=1, examples=32, batch_size=32, radius_rms=None)


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def of_seed(tiny: str, memory: Path, tmp_path: Path) -> Callable[[int], tuple[Path, Config, Any]]:
    """A copy of a finished run, its config and its data."""

    def made(seed: int) -> tuple[Path, Config, Any]:
        if not (memory / str(seed)).exists():
            finished(memory / str(seed), tiny, batch_plan="1x256", seed=seed)
        folder = copied(memory / str(seed), tmp_path / f"run{seed}")
        config = Config.load(folder / "config.json")
        return folder, config, run.load(config)

    return made


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_modified_file_of_the_state_is_named(of_seed: Any, tmp_path: Path, damage: str) -> None:
    folder, config, dataset = of_seed(0)
    names = json.loads((folder / "checkpoint" / "digests.json").read_text())["files"]
    assert {"manifest.ocdbt", "_METADATA"} <= set(names)
    for name in names:
        damaged = copied(folder, tmp_path / "damaged")
        DAMAGES[damage](damaged / "checkpoint" / name)
        with refused(damaged, r"damaged has no readable trained state \(.*\): run it again\."):
            measure_run(damaged, config, dataset, QUICK)
        shutil.rmtree(damaged)
    for content in ("{", "[]", "{}", '{"files": {}, "config": {}}', "[" * 200_000):
        (folder / "checkpoint" / "digests.json").write_text(content)
        with refused(folder, "has no readable trained state"):
            measure_run(folder, config, dataset, QUICK)


def test_a_state_of_another_seed_is_refused_wherever_it_is_read(of_seed: Any) -> None:
    (folder, config, dataset), (other, *_) = of_seed(0), of_seed(5)
    shutil.rmtree(folder / "checkpoint")
    shutil.copytree(other / "checkpoint", folder / "checkpoint")
    for reading in (measure_run, replay):
        with refused(folder, "run0/checkpoint belongs to another run: seed is 5 there and 0 here"):
            reading(folder, config, dataset, QUICK)


def test_a_state_without_checksums_is_read_with_a_warning(of_seed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder, config, dataset = of_seed(0)
    console = Console(soft_wrap=True)
    measure_finished_run(folder, config, dataset, QUICK, console)
    assert capsys.readouterr().out == ""
    (folder / "checkpoint" / "digests.json").unlink()
    measure_finished_run(folder, config, dataset, QUICK, console)
    assert "was made before trained states had checksums" in " ".join(capsys.readouterr().out.split())
    assert len(sharpness_records.read(folder)) == 1


READING = """
import sys
from pathlib import Path
from experiments import models, run, trained_state
from experiments.config import Config
from experiments.models import registry
from experiments.program import build
from tests.experiments.conftest import TinyNet
registry._BUILDERS["tiny"] = TinyNet
models.NAMES = (*models.NAMES, "tiny")
config = Config.load(Path(sys.argv[1]) / "config.json")
state, _ = build(config, run.load(config))
try:
    trained_state.restored(Path(sys.argv[1]), config, state)
except ValueError as error:
    print(error)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    "damage", [flip, lambda path: path.write_bytes(path.read_bytes()[:20])], ids=["flipped", "cut"]
)
@pytest.mark.parametrize("part", ["manifest.ocdbt", "_METADATA", "d/*", "ocdbt.process_0/manifest.ocdbt"])
def test_a_damaged_state_without_checksums_ends_in_one_error_message(
    of_seed: Any, damage: Callable[[Path], Any], part: str
) -> None:
    folder, *_ = of_seed(0)
    (folder / "checkpoint" / "digests.json").unlink()
    for path in (folder / "checkpoint").glob(part):
        damage(path)
    command = [sys.executable, "-W", "ignore", "-c", READING, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)  # noqa: S603
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") <= 1
    assert done.stdout == "" or "has no readable trained state" in done.stdout
