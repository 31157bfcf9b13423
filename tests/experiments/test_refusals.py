"""Saves that cannot be resumed are refused with a message, and stay unchanged."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from experiments import data, train
from experiments.cli.errors import start
from experiments.config import Config
from experiments.runner import run
from experiments.training import checkpoint
from experiments.training.checkpoint import Checkpoints
from experiments.training.run_folder import LOCK
from tests.experiments.interrupted_runs import assert_same_run, copied, execute, stopped
from tests.experiments.test_command_line import call

SETTINGS: dict[str, Any] = {"model": "tiny", "method": "sam", "batch_plan": "2x128"}  # 8 updates


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def stopped_run(tiny: str, memory: Path, tmp_path: Path) -> Path:
    """A run with saves of steps 3 and 5."""
    if not (memory / "stopped").exists():
        stopped(memory / "stopped", Config.from_settings(**SETTINGS), 5, every=3)
    return copied(memory / "stopped", tmp_path / "run")


@pytest.fixture
def whole_run(tiny: str, memory: Path) -> Path:
    if not (memory / "whole").exists():
        execute(memory / "whole", Config.from_settings(**SETTINGS))
    return memory / "whole"


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != LOCK]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@contextmanager
def refused(folder: Path, words: str) -> Iterator[None]:
    """Asserts a short error with these words that leaves the folder unchanged."""
    before = contents(folder)
    with pytest.raises(ValueError, match=words) as refusal:
        yield
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400
    assert contents(folder) == before


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "flipped": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_save_is_named_with_the_remedy(
    stopped_run: Path, whole_run: Path, tmp_path: Path, damage: str
) -> None:
    config, saves = Config.from_settings(**SETTINGS), stopped_run / "checkpoints"
    digests = json.loads((saves / "5" / "digests.json").read_text())
    assert len(digests) > 5
    for name in (*digests, "digests.json"):
        damaged = copied(stopped_run, tmp_path / "damaged")
        DAMAGES[damage](damaged / "checkpoints" / "5" / name)
        with refused(damaged, "checkpoints/5 is damaged.*remove it to continue from step 3"):
            execute(damaged, config)
        shutil.rmtree(damaged)
    shutil.rmtree(saves / "5")
    execute(stopped_run, config)
    assert_same_run(stopped_run, whole_run)


def test_the_program_ends_with_the_error_message(
    stopped_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(next((stopped_run / "checkpoints" / "5" / "state" / "d").iterdir()))
    arguments = ["--model", "tiny", "--method", "sam", "--batch-plan", "2x128", "--output", str(stopped_run)]
    with refused_by_program(stopped_run, 2):
        call_program(monkeypatch, *arguments, "--resume")
    output = capsys.readouterr().err
    assert output.startswith(f"error: {stopped_run}/checkpoints/5 is damaged")
    assert output.count("\n") == 1


@contextmanager
def refused_by_program(folder: Path, code: int) -> Iterator[None]:
    before = contents(folder)
    with pytest.raises(SystemExit) as stop:
        yield
    assert stop.value.code == code
    assert contents(folder) == before


def call_program(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    start(partial(call, train, monkeypatch, *arguments))


def test_a_config_that_differs_is_named_field_by_field(stopped_run: Path) -> None:
    other = Config.from_settings(**SETTINGS | {"rho": 0.1, "seed": 3})
    words = "run belongs to another run: rho is 0.05 there and 0.1 here, seed is 0 there and 3 here"
    with refused(stopped_run, words):
        execute(stopped_run, other)


def test_a_save_of_another_run_is_named(stopped_run: Path, tmp_path: Path) -> None:
    config = Config.from_settings(**SETTINGS)
    stopped(tmp_path / "other", Config.from_settings(**SETTINGS | {"method": "gsam"}), 6)
    (tmp_path / "other" / "checkpoints" / "6").rename(stopped_run / "checkpoints" / "6")
    with refused(stopped_run, "checkpoints/6 belongs to another run: method is 'gsam' there and 'sam' here"):
        execute(stopped_run, config)


def test_a_state_of_another_network_is_named(stopped_run: Path, tmp_path: Path) -> None:
    """As from another version of the program: the config is the same, and the state has another shape."""
    Checkpoints(tmp_path / "other", keep=1).close()
    saves = Checkpoints(tmp_path / "other", keep=1)
    notes = checkpoint.notes_of(stopped_run / "checkpoints", 5)
    notes["progress"]["step"] = 6
    saves.save(6, {"params": jnp.zeros(3)}, notes)
    saves.close()
    (tmp_path / "other" / "6").rename(stopped_run / "checkpoints" / "6")
    with refused(stopped_run, "checkpoints/6 is damaged, or belongs to another network"):
        execute(stopped_run, Config.from_settings(**SETTINGS))


def test_changed_data_are_reported(stopped_run: Path) -> None:
    config = Config.from_settings(**SETTINGS)
    dataset = run.load(config)
    images = dataset.train.images.copy()
    images[17, 3, 3, 0] ^= 1
    changed = dataclasses.replace(dataset, train=data.Split(images, dataset.train.labels))
    with refused(stopped_run, "the data set digits has changed since .*checkpoints/5 was saved"):
        execute(stopped_run, config, changed)


def test_missing_metrics_are_reported(stopped_run: Path) -> None:
    (stopped_run / "metrics.jsonl").write_bytes((stopped_run / "metrics.jsonl").read_bytes()[:-30])
    with refused(stopped_run, r"metrics.jsonl is damaged: it has \d+ bytes, and had \d+"):
        execute(stopped_run, Config.from_settings(**SETTINGS))


@pytest.mark.parametrize("content", ["", '{"model": "ti', '{"size": 3}'])
def test_a_damaged_config_is_reported(stopped_run: Path, content: str) -> None:
    (stopped_run / "config.json").write_text(content)
    with refused(stopped_run, "config.json is damaged, or was made by another version"):
        execute(stopped_run, Config.from_settings(**SETTINGS))


def test_a_folder_with_foreign_content_is_refused(tiny: str, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with refused(tmp_path, "holds thesis.tex and no run"):
        execute(tmp_path, Config.from_settings(**SETTINGS))


def rewritten(save: Path, name: str, content: Any) -> None:
    """Rewrites a file of a save and its checksum, as another version might have written it."""
    (save / name).write_text(json.dumps(content))
    digests = json.loads((save / "digests.json").read_text())
    digests[name] = hashlib.sha256((save / name).read_bytes()).hexdigest()
    (save / "digests.json").write_text(json.dumps(digests))


NOTES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "none": lambda notes: None,
    "a list": lambda notes: [notes],
    "empty": lambda notes: {},
    "no seconds": lambda notes: {name: value for name, value in notes.items() if name != "seconds"},
    "no order": lambda notes: {name: value for name, value in notes.items() if name != "order"},
    "another order": lambda notes: notes | {"order": "tensorflow"},
    "no progress": lambda notes: notes | {"progress": None},
    "another progress": lambda notes: notes | {"progress": {"step": 5, "parts": 3}},
    "no numbers": lambda notes: notes | {"progress": notes["progress"] | {"epoch": None}},
    "another step": lambda notes: notes | {"progress": notes["progress"] | {"step": 4}},
    "no bytes": lambda notes: notes | {"metrics_bytes": "many"},
    "no config": lambda notes: notes | {"config": 3},
    "another config": lambda notes: notes | {"config": notes["config"] | {"batch_plan": 3}},
}


@pytest.mark.parametrize("kind", NOTES)
def test_a_save_of_another_version_is_named(stopped_run: Path, kind: str) -> None:
    save = stopped_run / "checkpoints" / "5"
    notes = json.loads((save / "notes" / "metadata").read_text())
    rewritten(save, "notes/metadata", NOTES[kind](notes))
    with refused(
        stopped_run, "checkpoints/5 (is damaged, or belongs to another network or|was made by another) version"
    ):
        execute(stopped_run, Config.from_settings(**SETTINGS))


@pytest.mark.parametrize("digests", ["{}", "[]", "null", '{"notes/metadata": 3}', '{"\\u0000": ""}'])
def test_malformed_checksums_are_reported(stopped_run: Path, digests: str) -> None:
    (stopped_run / "checkpoints" / "5" / "digests.json").write_text(digests)
    with refused(stopped_run, "checkpoints/5 is damaged.*remove it to continue from step 3"):
        execute(stopped_run, Config.from_settings(**SETTINGS))


@pytest.mark.parametrize("name", list(Config().settings))
def test_a_config_of_another_version_is_reported(stopped_run: Path, name: str) -> None:
    config = json.loads((stopped_run / "config.json").read_text())
    (stopped_run / "config.json").write_text(json.dumps(config | {name: {"another": ["kind"]}}))
    with refused(
        stopped_run, f"(config.json is damaged, or was made by another version|run belongs to another run: {name})"
    ):
        execute(stopped_run, Config.from_settings(**SETTINGS))
