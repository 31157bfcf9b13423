"""Sharpness measured beside a run: of its trained network, and on the way there."""

from collections.abc import Callable
from pathlib import Path

import jax

from experiments import data, sharpness_file
from experiments.config import Config
from experiments.measuring.measures import AT_RADII, measure
from experiments.measuring.network import trained
from experiments.measuring.settings import Sharpness
from experiments.program import build
from experiments.run import Watch, train
from experiments.training import checkpoint
from experiments.training.step import TrainState
from experiments.training.writers import Record, plain

Write = Callable[[list[Record]], None]


def measure_run(folder: Path, config: Config, dataset: data.Dataset, settings: Sharpness) -> None:
    """Measure the sharpness of the trained network of a run, and write it beside the run.

    Args:
      folder: of the finished run.
      config: what was run.
      dataset: its data.
      settings: what to measure.
    """
    state, _ = build(config, dataset)
    state = checkpoint.restore(folder / "checkpoint", state)
    last = {"epoch": config.plan.epochs, "step": config.plan.total_steps(len(dataset.train))}
    sharpness_file.add(folder, _measured(config, dataset, settings, last, state))


def has_measured(folder: Path, config: Config, settings: Sharpness) -> bool:
    """Whether all that the settings ask for was measured of the trained network, in the same way."""
    wanted = {name: getattr(settings, name) for name in ("norm", "adaptive", "steps", "restarts")}
    wanted |= {name: getattr(settings, name) for name in ("normalize_logits", "reestimate_batchnorm")}
    wanted |= {"measured_batch_size": settings.batch_size, "epoch": config.plan.epochs}
    records = [
        record
        for record in sharpness_file.read(folder)
        if all(record.get(name, value) == value for name, value in wanted.items())
        and record["examples"] <= settings.examples
    ]
    return all(_is_among(name, settings, records) for name in settings.measures)


def watching(config: Config, dataset: data.Dataset, settings: Sharpness, write: Write) -> Watch | None:
    """What measures a run while it trains, every so many epochs and after the last one, if that is asked for."""
    if settings.during is None:
        return None
    every = settings.during

    def watch(record: Record, state: TrainState) -> None:
        if record["epoch"] % every == 0 or record["epoch"] == config.plan.epochs:
            write(_measured(config, dataset, settings, record, state))

    return watch


def replay(folder: Path, config: Config, dataset: data.Dataset, settings: Sharpness) -> bool:
    """Train a finished run again, which its config and seed determine, and measure on the way.

    Returns:
      Whether it came to the same parameters, bit by bit, as it does on the same kind of machine; else nothing is
      written.
    """
    records: list[Record] = []
    state, _ = train(config, dataset, watch=watching(config, dataset, settings, records.extend))
    before = checkpoint.restore(folder / "checkpoint", state)
    is_same = bool(jax.tree.all(jax.tree.map(lambda x, y: (x == y).all(), state.params, before.params)))
    if is_same:
        sharpness_file.add(folder, records)
    return is_same


def _is_among(name: str, settings: Sharpness, records: list[Record]) -> bool:
    """Whether a measure was taken, at each radius that is asked for."""
    of_kind = [record for record in records if record["kind"] == name]
    if not of_kind or name not in AT_RADII:
        return bool(of_kind)
    radii = [plain(rho) for rho in settings.radii(of_kind[0]["parameters"])]
    return set(radii) <= {record["rho"] for record in of_kind}


def _measured(
    config: Config, dataset: data.Dataset, settings: Sharpness, record: Record, state: TrainState
) -> list[Record]:
    where = {"epoch": record["epoch"], "step": record["step"]}
    return [{**each, **where} for each in measure(trained(config, dataset, state, settings), settings)]
