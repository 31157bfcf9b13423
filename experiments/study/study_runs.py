"""The runs of a study, one after the other: what is done is not done again, and a run that fails stops no other."""

import traceback
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import jax
from rich.console import Console
from rich.progress import Progress

from experiments import data
from experiments.cli.errors import exit_on_value_error
from experiments.runner import run
from experiments.sharpness import SharpnessSettings, has_measured
from experiments.sharpness.measure_runs import measure_finished_run
from experiments.study.run_spec import RunSpec, check_unfinished, execute, is_done
from experiments.training.checkpoint_schedule import Saving
from experiments.training.exceptions import NotFiniteError, Terminated, UnusableError
from experiments.training.preemption import Stop, never


class RunOptions(NamedTuple):
    """How the runs of a study are done.

    Attributes:
      location: where the data are.
      sharpness: how the sharpness of each is measured; None: not at all.
      tensorboard: whether TensorBoard's event files are written, too.
      saving: how each is saved on its way.
      stop: whether to stop, asked before each step, each run and each measurement.
    """

    location: data.Location = data.Location()
    sharpness: SharpnessSettings | None = None
    tensorboard: bool = False
    saving: Saving = Saving()
    stop: Stop = never


def run_all(title: str, cells: list[RunSpec], options: RunOptions, console: Console) -> list[RunSpec]:
    """Run the cells that were not run yet, with a bar of progress, and measure them.

    A wrong setting, missing data and a folder with another run end the program with a sentence, before the first run. A
    run that fails is told with its traceback, and the others go on; one that stops at a step that is not finite, or
    whose folder cannot be used, with a sentence.

    Args:
      title: what is run: `small_resnet on digits`.
      cells: all runs of the study.
      options: how.
      console: the terminal.

    Returns:
      The cells that failed.

    Raises:
      Terminated: If the options' `stop` said so; the run in progress is saved.
      RuntimeError: If JAX cannot use a device, before the first run.
    """
    left = exit_on_value_error(_to_do, cells, options.location)
    jax.local_devices()  # else each run would fail of it
    console.print(f"{len(cells)} runs of {title}, {len(left)} of them to do")
    with Progress(console=console, transient=True) as progress:
        overall = progress.add_task("runs", total=len(left))
        failed = [cell for cell in left if not _survives(cell, options, progress, overall)]
        if options.sharpness is not None:
            run_well = [cell for cell in cells if cell not in failed]
            measure_all(run_well, options.location, options.sharpness, progress, stop=options.stop)
    if failed:
        console.print(f"failed: {len(failed)} of {len(cells)} runs ({', '.join(cell.name for cell in failed)})")
    if options.stop(0):
        raise Terminated("stopped after the last run: the same command goes on.")
    return failed


def measure_all(
    cells: list[RunSpec], location: data.Location, sharpness: SharpnessSettings, progress: Progress, *, stop: Stop
) -> None:
    """Measure what was not measured yet; what cannot be is told in a sentence, and the others go on.

    Raises:
      Terminated: Where `stop` says so; what was measured is kept.
    """
    for cell in progress.track(cells, description="sharpness"):
        if stop(0):
            raise Terminated("stopped between two measurements: the same command goes on.")
        dataset = run.load(cell.config, location)
        try:
            if not has_measured(cell.folder, cell.config, dataset, sharpness):
                measure_finished_run(cell.folder, cell.config, dataset, sharpness, progress.console)
        except ValueError as error:
            progress.console.print(f"not measured: {error}")
        except Exception:  # memory may be too small: the others are worth their time
            progress.console.print(f"{cell.name} was not measured:\n{traceback.format_exc()}")


def _to_do(cells: Iterable[RunSpec], location: data.Location) -> list[RunSpec]:
    for cell in cells:
        run.load(cell.config, location)
    left = [cell for cell in cells if not is_done(cell)]
    for cell in left:
        check_unfinished(cell)
    return left


def _survives(cell: RunSpec, options: RunOptions, progress: Progress, overall: object) -> bool:
    """Whether the run came to its end; memory may be too small for it, or the disk."""
    if options.stop(0):
        raise Terminated("stopped between two runs: the same command goes on.")
    dataset = run.load(cell.config, options.location)
    task = progress.add_task(cell.name, total=run.total_updates(cell.config, dataset))
    try:
        track = partial(progress.track, task_id=task)
        how = {"saving": options.saving, "stop": options.stop}
        result = execute(cell, dataset, track, options.sharpness, options.tensorboard, **how)
    except (UnusableError, NotFiniteError) as ending:
        progress.console.print(f"{cell.name} failed: {ending}")
        return False
    except Exception:  # whatever it is, the other runs are worth their time
        progress.console.print(f"{cell.name} failed:\n{traceback.format_exc()}")
        return False
    finally:
        progress.remove_task(task)
        progress.advance(overall)
    progress.console.print(f"{cell.name}: {run.ending(result)}, in {result.seconds:.1f} s")
    return True
