"""Several processes that train together over the loopback interface give the run of a single process."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import chex
import numpy as np
import pytest
from jax.experimental import multihost_utils

from experiments import data
from experiments.cli.output_folder import claim
from experiments.config import Config
from experiments.runner import hosts, run
from experiments.runner.program import build
from experiments.training import checkpoint
from sam_optax import BatchPlan
from tests.experiments.many_devices import assert_same_records, placed
from tests.experiments.several_processes import together

PLAN = ("--batch-plan", "2x16,1x32", "--train-examples", "64", "--method", "gsam", "--momentum", "0.9")


def trained_state(folder: Path, dataset: data.Dataset) -> Any:
    return checkpoint.restore(folder / "checkpoint", build(Config.load(folder / "config.json"), dataset)[0])


def assert_same_run(found: Path, wanted: Path) -> None:
    """Asserts equal runs up to rounding, which depends on the order of sums."""
    assert json.loads((found / "config.json").read_text()) == json.loads((wanted / "config.json").read_text())
    assert_same_records(found, wanted)
    dataset = run.load(Config.load(wanted / "config.json"))
    chex.assert_trees_all_close(*(trained_state(folder, dataset) for folder in (found, wanted)), atol=1e-4)


def test_two_processes_with_two_devices_each_train_like_one_process(tiny: str, tmp_path: Path) -> None:
    output, single = tmp_path / "together", claim(tmp_path / "alone")
    command = ("tests.experiments.tiny_program", "--model", "tiny", *PLAN, "--devices", "2", "--output", str(output))
    first, second = together(*command)
    assert (first.code, second.code) == (0, 0), first.errors + second.errors
    assert "gsam on digits: test error" in first.output
    assert "gsam on digits" not in second.output
    config = Config.load(output / "config.json")
    run.execute(config, run.load(config), single)
    assert_same_run(output, single)


@pytest.mark.long
def test_a_folder_that_the_first_process_refuses_is_refused_on_both(tmp_path: Path) -> None:
    output = tmp_path / "full"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    command = ("tests.experiments.tiny_program", "--model", "tiny", *PLAN, "--devices", "2", "--output", str(output))
    for refused in together(*command):
        assert refused.code == 2
        assert f"error: output folder {output} holds" in refused.errors
    assert [path.name for path in output.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("words", [("the folder is full", ""), ("", "the folder is full")], ids=["first", "second"])
def test_an_error_on_one_process_is_raised_on_all(monkeypatch: pytest.MonkeyPatch, words: tuple[str, str]) -> None:
    def gathered(letters: np.ndarray) -> np.ndarray:
        sent = [np.frombuffer(each.encode().ljust(len(letters)), np.uint8) for each in words]
        assert bytes(letters) == bytes(sent[0])
        return np.stack(sent)

    def checked() -> None:
        if words[0]:
            raise ValueError(words[0])

    monkeypatch.setattr(multihost_utils, "process_allgather", gathered)
    first_of_two: Any = SimpleNamespace(part=(0, 2))
    with pytest.raises(ValueError, match=r"^the folder is full$"):
        hosts.agree_across_hosts(first_of_two, checked)


@pytest.mark.long
@pytest.mark.parametrize("extra", [("--fsdp",), ("--ema", "0.9"), ("--perturbation", "device")], ids=lambda x: x[0])
def test_a_real_network_trains_in_two_processes_from_the_command_line(extra: tuple[str, ...], tmp_path: Path) -> None:
    output, single = tmp_path / "together", claim(tmp_path / "alone")
    measured = ("--sharpness.during", "2", "--sharpness.examples", "64", "--sharpness.measures", "worst_case")
    smooth = ("--model", "vit_tiny")  # in a ResNet, some of a million ReLUs would be so near zero that rounding decides
    for process in together("experiments.train", *smooth, *PLAN, *extra, *measured, "--output", str(output)):
        assert process.code == 0, process.errors
    config = Config.load(output / "config.json")
    run.execute(config, run.load(config), single, run.RunContext(sharding=placed(2)))
    assert_same_run(output, single)
    assert (output / "sharpness.jsonl").exists()


@pytest.mark.long
def test_all_processes_follow_the_adaptive_plan_of_the_first(tmp_path: Path) -> None:
    plan = ("--batch-plan", "adaptive:6x16..64:noise_scale:0.4", "--micro-batch", "8", "--train-examples", "64")
    command = ("--model", "tiny", "--method", "sam", *plan, "--output", str(tmp_path / "run"))
    first, second = together("tests.experiments.disagreeing_program", *command)
    assert (first.code, second.code) == (0, 0), first.errors + second.errors
    printed = [[line for line in each.output.splitlines() if line.startswith("plan ")] for each in (first, second)]
    assert printed[0] == printed[1]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert printed[0][-1] == f"plan {result.batch_plan}"
    assert len(BatchPlan.parse(result.batch_plan).stages) > 1


@dataclass(frozen=True)
class Watched(data.Split):
    """Examples that record which of them are read."""

    noted: list[list[int]] = field(default_factory=list)

    def rows(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.noted.append(index.tolist())
        return super().rows(index)


@pytest.mark.parametrize("part", [(0, 2), (1, 2), (3, 4)])
def test_a_process_reads_only_its_own_part_of_each_batch(part: tuple[int, int]) -> None:
    split = Watched(np.arange(32, dtype=np.uint8).reshape(32, 1, 1, 1), np.arange(32, dtype=np.int32))
    whole = list(data.training_batches(split, BatchPlan.parse("1x8,1x16"), seed=0))
    split.noted.clear()
    own = list(data.training_batches(split, BatchPlan.parse("1x8,1x16"), seed=0, part=part))
    index, count = part
    wanted = [np.split(batch["label"], count)[index].tolist() for batch in whole]
    assert [batch["label"].tolist() for batch in own] == split.noted == wanted
