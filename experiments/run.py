"""One run: from a config to a folder with its metrics, its trained state and its result."""

import json
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from experiments import data
from experiments.config import Config
from experiments.program import build
from experiments.recipe import transform_of
from experiments.training import checkpoint
from experiments.training.loop import fit
from experiments.training.step import TrainState
from experiments.training.writers import JsonLines, Record, Writer, plain

UNFINISHED = ".unfinished"  # at the end of a folder's name: a run of a study that has not come to its end

_LAST = ("train_loss", "train_error", "test_loss", "test_error")
_FIGURES = {*_LAST, "updates", "gradient_evaluations", "seconds"}

Track = Callable[[Iterable[Any]], Iterable[Any]]
Watch = Callable[[Record, TrainState], None]
"""Looks at the record of an epoch and at the state after it, which it must not keep."""


def load(config: Config, location: data.Location = data.Location()) -> data.Dataset:
    """The data of a run, looked for at `location`.

    Raises:
      ValueError: If it is not there, or if the batch plan or the recipe does not fit it.
    """
    parts = {name: getattr(config, name) for name in ("split", "train_examples", "validation", "label_noise")}
    dataset = data.load(config.dataset, config.seed, location, **parts)
    transform_of(config, dataset)
    updates = total_updates(config, dataset)
    if updates >= 2**31:
        raise ValueError(f"the batch plan {config.batch_plan} has {updates} updates: at most 2³¹ − 1 are counted.")
    return dataset


def total_updates(config: Config, dataset: data.Dataset) -> int:
    """How many updates a run makes.

    Raises:
      ValueError: If a batch of the plan is larger than an epoch.
    """
    return config.plan.total_steps(config.epoch_size(len(dataset.train)))


def make_folder(output: Path) -> Path:
    """The folder `output`, made where it is not there.

    Raises:
      ValueError: If it cannot be made, read or written.
    """
    if set("*?[") & set(str(output.resolve())):
        raise ValueError(f"output folder {output} has one of * ? [ in its path, where checkpoints get lost: rename it.")
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            return output
    except OSError as error:
        reason = "it is a file" if output.is_file() else error.strerror
        raise ValueError(f"output folder {output} cannot be used: {reason}. Choose another.") from error


def claim(output: Path) -> Path:
    """The folder of a run, made where it is not there.

    Raises:
      ValueError: If it cannot be made, or holds something already.
    """
    names = sorted(path.name for path in make_folder(output).iterdir())
    if names:
        raise ValueError(f"output folder {output} holds {names[0]} already: choose another folder, or empty it.")
    return output


def execute(
    config: Config,
    dataset: data.Dataset,
    output: Path,
    track: Track = iter,
    writers: Iterable[Writer] = (),
    *,
    watch: Watch | None = None,
) -> Record:
    """Train, and fill the folder: `config.json`, `metrics.jsonl`, `checkpoint`, and at last `result.json`.

    Args:
      config: what to run.
      dataset: its data.
      output: an empty folder.
      track: goes through the batches while something watches.
      writers: take the records that `metrics.jsonl` takes; closed at the end.
      watch: looks at the state after every epoch.

    Returns:
      The result: the last epoch's figures, the number of updates and of gradient evaluations, the seconds without those
      of the watch.
    """
    started, aside = time.perf_counter(), _Aside(watch)
    with ExitStack() as opened:
        writers = [opened.enter_context(closing(writer)) for writer in writers]
        config.save(output / "config.json")
        writers += [opened.enter_context(closing(JsonLines(output / "metrics.jsonl")))]
        state, last = train(config, dataset, track, partial(_write, writers), aside)
    checkpoint.save(output / "checkpoint", state)
    result = _result(last) | {"seconds": round(time.perf_counter() - started - aside.seconds, 2)}
    result = {name: plain(value) for name, value in result.items()}
    (output / "result.json").write_text(json.dumps(result, indent=2), encoding="utf-8")
    return result


def train(
    config: Config,
    dataset: data.Dataset,
    track: Track = iter,
    write: Callable[[Record], None] = lambda record: None,
    watch: Watch | None = None,
) -> tuple[TrainState, Record]:
    """Train, and give back the state after the last step and the record of the last epoch."""
    state, program = build(config, dataset)
    stream = data.training_batches(
        dataset.train, config.plan, config.seed, passes=config.passes, transform=transform_of(config, dataset)
    )
    batches = iter(track(stream))
    num_examples = config.epoch_size(len(dataset.train))
    return fit(state, program, batches, plan=config.plan, num_examples=num_examples, write=write, watch=watch)


def result_of(folder: Path) -> Record:
    """The result of the run in `folder`.

    Raises:
      ValueError: If there is none, or one that was damaged or made by another version.
    """
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        result = None
    if not isinstance(result, dict) or _FIGURES - result.keys():
        raise ValueError(f"{folder} holds a run that was damaged, or made by another version.")
    return result


def diverged(result: Record) -> bool:
    """Whether the loss was not finite in the last epoch."""
    return result["train_loss"] is None or result["test_loss"] is None


def ending(result: Record) -> str:
    """How a run came out, in a few words."""
    return f"test error {100 * result['test_error']:.2f}%" + (", diverged" if diverged(result) else "")


class _Aside:
    """A watch whose time is not the training's."""

    def __init__(self, watch: Watch | None) -> None:
        self.seconds, self._watch = 0.0, watch

    def __call__(self, record: Record, state: TrainState) -> None:
        if self._watch is not None:
            started = time.perf_counter()
            self._watch(record, state)
            self.seconds += time.perf_counter() - started


def _write(writers: list[Writer], record: Record) -> None:
    for writer in writers:
        writer.write(record)


def _result(last: Record) -> Record:
    figures = {name: float(last[name]) for name in _LAST}
    return figures | {"updates": last["step"], "gradient_evaluations": last["gradient_evaluations"]}
