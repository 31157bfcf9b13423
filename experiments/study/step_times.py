"""The hours that a study takes on this machine, from training steps that are timed at each batch size of its plans.

The steps are made on random images of the true shapes, so the data are not needed.
"""

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing

import jax
import numpy as np
from rich.console import Console

from experiments import data
from experiments.cli.tables import Rows
from experiments.config import Config
from experiments.runner.program import build
from experiments.study.dry_run import print_wide, updates_by_kind
from experiments.training.methods import METHODS

_STEPS = 5  # timed steps
_HEADING = ("method", "runs", "updates", "seconds per update, by batch size", "images/s", "hours on this machine")
_REMARK = (
    f"Each time is the median of {_STEPS} updates on random images. Not included: compilation, evaluation, sharpness, "
    "checkpoints, the report, and the input pipeline if it delivers fewer images/s."
)


def time_step(config: Config, batch_size: int, *, perturb: bool) -> float:
    """Returns the median time of an update in seconds. A first update, which compiles, is not counted.

    Args:
      config: the config of a run.
      batch_size: the number of examples in the batch.
      perturb: whether the update makes a second pass.
    """
    single = config.with_settings(batch_plan=f"1x{batch_size}", passes=1, warmup_epochs=0.0, lr_schedule="constant")
    dataset = data.synthetic(config.problem.dataset, batch_size, user_images=config.problem.user_images)
    state, program = build(single, dataset)
    at_start = {name: np.float32(schedule(0.0)) for name, schedule in program.schedules.items()}
    batch = next(data.training_batches(dataset.train, single.plan, single.seed))
    seconds = []
    with closing(program):
        for _ in range(1 + _STEPS):
            started = time.perf_counter()
            state, metrics = program.step(state, batch, at_start, perturb=perturb)
            jax.block_until_ready(metrics)
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def show_hours(configs: Sequence[Config], stored: int, console: Console, batch_size: int | None = None) -> None:
    """Times steps of each method, and prints how long the runs of each method and all runs take on this machine.

    The time of a run is the sum over batch sizes of the number of updates times the seconds per update. Updates with
    and without a second pass are timed separately.

    Args:
      configs: the configs of the runs, which differ only in method, batch plan, learning rate, radius and seed.
      stored: the number of training examples of the data set.
      console: the terminal.
      batch_size: the batch size of the timed steps, whose time per example is assumed for all batch sizes; None: each
        batch size of the plans is timed.
    """
    by_method: dict[str, list[Config]] = {}
    for config in configs:
        by_method.setdefault(config.method, []).append(config)
    rows: Rows = [_HEADING]
    all_updates, all_hours = 0, 0.0
    for method, alike in by_method.items():
        updates: Counter[tuple[int, bool]] = Counter()
        for config in alike:
            updates.update(updates_by_kind(config, stored))
        seconds = _seconds(alike[0], sorted(updates), batch_size)
        hours = sum(count * seconds[kind] for kind, count in updates.items()) / 3600
        rate = max(size / each for (size, _), each in seconds.items())
        shown = (f"{updates.total():,}", _listed(method, seconds), f"{rate:.3g}", _rounded(hours))
        rows.append((METHODS[method].title, str(len(alike)), *shown))
        all_updates, all_hours = all_updates + updates.total(), all_hours + hours
    rows.append(("all", str(len(configs)), f"{all_updates:,}", "–", "–", _rounded(all_hours)))
    print_wide(rows, console)
    console.print(_REMARK)
    if batch_size is not None:
        console.print(
            f"Only batches of {batch_size} were timed: the time per example is assumed to be equal at all sizes."
        )


def _seconds(config: Config, kinds: list[tuple[int, bool]], timed: int | None) -> dict[tuple[int, bool], float]:
    """Returns the seconds per update of each kind; if `timed` is given, only batches of this size are timed."""
    if timed is None:
        return {(size, perturb): time_step(config, size, perturb=perturb) for size, perturb in kinds}
    undivided = config.with_settings(m=None)  # the size of the parts need not divide the timed batch size
    found = {perturb: time_step(undivided, timed, perturb=perturb) for perturb in sorted({each for _, each in kinds})}
    return {(size, perturb): found[perturb] * size / timed for size, perturb in kinds}


def _listed(method: str, seconds: dict[tuple[int, bool], float]) -> str:
    """Returns the seconds per update at each batch size, for example `16: 0.012, 128: 0.141`."""
    makes_second_pass = METHODS[method].makes_second_pass
    return ", ".join(
        f"{size}{'' if perturb or not makes_second_pass else ' with one pass'}: {each:.3g}"
        for (size, perturb), each in seconds.items()
    )


def _rounded(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"
