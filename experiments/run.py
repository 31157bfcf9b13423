"""One run: from a config to a folder with its metrics, its trained state and its result."""

import json
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from experiments import data
from experiments.config import Config
from experiments.program import build
from experiments.training import checkpoint
from experiments.training.loop import Record, fit
from experiments.training.metrics import JsonLines, plain
from experiments.training.optimizer import METHODS

Track = Callable[[Iterable[Any]], Iterable[Any]]


def load(config: Config) -> data.Dataset:
    """The data of a run.

    Raises:
      ValueError: If it is not there, or if the batch plan does not fit it.
    """
    dataset = data.load(config.dataset, config.seed)
    updates = config.plan.total_steps(len(dataset.train))
    if updates >= 2**31:
        raise ValueError(f"the batch plan {config.batch_plan} has {updates} updates: at most 2³¹ − 1 are counted.")
    return dataset


def make_folder(output: Path) -> Path:
    """The folder `output`, made where it is not there.

    Raises:
      ValueError: If it cannot be made, read or written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            return output
    except OSError as error:
        raise ValueError(f"output folder {output} cannot be used: {error.strerror}. Choose another.") from error


def claim(output: Path) -> Path:
    """The folder of a run, made where it is not there.

    Raises:
      ValueError: If it cannot be made, or holds something already.
    """
    names = sorted(path.name for path in make_folder(output).iterdir())
    if names:
        raise ValueError(f"output folder {output} holds {names[0]} already: choose another folder, or empty it.")
    return output


def execute(config: Config, dataset: data.Dataset, output: Path, track: Track = iter) -> Record:
    """Train, and fill the folder: `config.json`, `metrics.jsonl`, `checkpoint`, and at last `result.json`.

    Args:
      config: what to run.
      dataset: its data.
      output: an empty folder.
      track: goes through the batches while something watches.

    Returns:
      The result: the last epoch's figures, the number of updates and of gradient evaluations, the seconds.
    """
    started = time.perf_counter()
    config.save(output / "config.json")
    state, program = build(config, dataset)
    batches = iter(track(data.training_batches(dataset.train, config.plan, config.seed)))
    with JsonLines(output / "metrics.jsonl") as metrics:
        state, last = fit(
            state, program, batches, plan=config.plan, num_examples=len(dataset.train), write=metrics.write
        )
    checkpoint.save(output / "checkpoint", state)
    result = _result(config, last) | {"seconds": round(time.perf_counter() - started, 2)}
    result = {name: plain(value) for name, value in result.items()}
    (output / "result.json").write_text(json.dumps(result, indent=2), encoding="utf-8")
    return result


def _result(config: Config, last: Record) -> Record:
    figures = {name: float(last[name]) for name in ("train_loss", "train_error", "test_loss", "test_error")}
    passes = METHODS[config.method].passes
    return figures | {"updates": last["step"], "gradient_evaluations": last["step"] * passes}
