"""Executes the runs of a study; skips completed runs, and continues if a run fails."""

import io
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
from rich.console import Console
from rich.progress import Progress

from experiments import data
from experiments.cli.errors import exit_on_value_error
from experiments.runner import run
from experiments.sharpness import measure_runs
from experiments.study.parallel_runs import BETWEEN_RUNS, in_processes
from experiments.study.recorded_runs import Recorded, record, restore
from experiments.study.run_spec import RunOptions, RunSpec, check_unfinished, execute, is_done
from experiments.training.exceptions import NotFiniteError, Terminated, UnusableError
from experiments.training.preemption import Stop, never
from experiments.training.prefetch import Track

Check = Callable[[RunSpec], object]
"""`check(run)` raises if the folder of a run cannot be used; it may return whether the run is complete."""


def to_do(specs: Iterable[RunSpec], location: data.Location, is_done: Check, check_unfinished: Check) -> list[RunSpec]:
    """Returns the runs that are not complete yet.

    Args:
      specs: all runs of a study.
      location: the location of the data.
      is_done: returns whether a run is complete.
      check_unfinished: raises if the folder of an incomplete run cannot be used.

    Raises:
      ValueError: If the data of a run are missing, if its batch plan does not fit the data, or if its folder holds
        another run.
    """
    for spec in specs:
        run.load(spec.config, location)
    left = [spec for spec in specs if not is_done(spec)]
    for spec in left:
        check_unfinished(spec)
    return left


def in_turn(
    specs: list[RunSpec], options: RunOptions, progress: Progress
) -> Iterator[tuple[RunSpec, data.Dataset, Track]]:
    """Yields each run with its data and its progress tracker; shows progress bars for all runs and the current run.

    Raises:
      Terminated: If `options.context.stop` returns True before a run.
    """
    overall = progress.add_task("runs", total=len(specs))
    for spec in specs:
        if options.context.stop(0):
            raise Terminated(BETWEEN_RUNS)
        dataset = run.load(spec.config, options.location)
        task = progress.add_task(spec.name, total=run.total_updates(spec.config, dataset))
        yield spec, dataset, partial(progress.track, task_id=task)
        progress.remove_task(task)
        progress.advance(overall)


def run_all(title: str, specs: list[RunSpec], options: RunOptions, console: Console) -> list[RunSpec]:
    """Executes the runs that are not complete yet, with a progress bar, and measures the sharpness of all runs.

    A wrong setting, missing data or a folder with another run ends the program with an error message before the first
    run. If a run fails, its error is reported and the next run starts. The report is a single sentence if a step was
    not finite or if the folder cannot be used; otherwise it is a traceback.

    With `options.finished`, the folders of the runs in that file are restored first, and each run is appended to the
    file as soon as it is complete and measured.

    Args:
      title: the title of the study, for example `small_resnet on digits`.
      specs: all runs of the study.
      options: how the runs are executed.
      console: the terminal.

    Returns:
      The runs that failed.

    Raises:
      Terminated: If `options.context.stop` returns True; the run in progress is saved first. The message says how many
        runs are done, and how many are left.
      RuntimeError: If JAX cannot use any device; it is raised before the first run starts.
      UnusableError: If a finished run cannot be recorded.
    """
    recorded: Recorded = {}
    if options.finished is not None:
        recorded = exit_on_value_error(restore, specs, options.finished)
    left = exit_on_value_error(to_do, specs, options.location, is_done, check_unfinished)
    if options.jobs == 1:
        jax.local_devices()  # raises here if no device can be used, instead of in each run
    console.print(f"{len(specs)} runs of {title}, {len(left)} of them to do")
    failed = []
    try:
        with Progress(console=console, transient=True) as progress:
            for spec, survived in (_in_sequence if options.jobs == 1 else _at_once)(specs, left, options, progress):
                if not survived:
                    failed.append(spec)
                elif options.finished is not None:
                    recorded[spec.config.effective] = record(spec, options.finished, recorded)
        if failed:
            console.print(f"failed: {len(failed)} of {len(specs)} runs ({', '.join(spec.name for spec in failed)})")
        if options.context.stop(0):
            raise Terminated("stopped after the last run: run the same command again to continue.")
    except Terminated as ended:
        where = str(ended).partition(":")[0]  # the rest is the remedy, which is repeated below
        complete = sum(map(is_done, specs))
        counts = f"{complete} of {len(specs)} runs are done and {len(specs) - complete} are left"
        raise Terminated(f"{where}: {counts}. Run the same command again to continue.") from ended
    return failed


Outcomes = Iterator[tuple[RunSpec, bool]]
"""Runs that were executed and measured, or measured if they were complete, and whether each did not fail."""


def _in_sequence(specs: list[RunSpec], left: list[RunSpec], options: RunOptions, progress: Progress) -> Outcomes:
    """Measures the complete runs, and then executes the others; a progress bar shows the run in progress."""
    to_run = set(left)
    earlier = [spec for spec in specs if spec not in to_run]
    for spec in progress.track(earlier, description="sharpness of earlier runs") if earlier else ():
        _measure(spec, run.load(spec.config, options.location), options, progress.console)
        yield spec, True
    for spec, dataset, track in in_turn(left, options, progress):
        survived = _execute(spec, dataset, options, track, progress.console)
        if survived:
            _measure(spec, dataset, options, progress.console)
        yield spec, survived


def _at_once(specs: list[RunSpec], left: list[RunSpec], options: RunOptions, progress: Progress) -> Outcomes:
    """Executes and measures runs in `options.jobs` processes, and prints what they print when a run is complete."""
    unbound = replace(options, context=replace(options.context, stop=never))  # a function cannot be sent to a process
    to_run = set(left)
    tasks = [_Task(spec, spec not in to_run, unbound) for spec in specs]
    overall = progress.add_task("runs", total=len(tasks))
    for task, (survived, words) in in_processes(_finish, tasks, options.jobs, options.context.stop):
        progress.console.print(words, end="")
        progress.advance(overall)
        yield task.spec, survived


class _Task(NamedTuple):
    """A run for another process: it is executed unless it is complete, and measured."""

    spec: RunSpec
    is_complete: bool
    options: RunOptions


def _finish(task: _Task, stop: Stop) -> tuple[bool, str]:
    """Executes and measures a run; returns whether it did not fail, and the text for the terminal."""
    options = replace(task.options, context=replace(task.options.context, stop=stop))
    printed = io.StringIO()
    console = Console(file=printed, soft_wrap=True, markup=False, highlight=False)
    dataset = run.load(task.spec.config, options.location)
    survived = task.is_complete or _execute(task.spec, dataset, options, iter, console)
    if survived:
        _measure(task.spec, dataset, options, console)
    return survived, printed.getvalue()


def _execute(spec: RunSpec, dataset: data.Dataset, options: RunOptions, track: Track, console: Console) -> bool:
    """Executes a run, and prints its outcome or its error; returns whether it did not fail."""
    try:
        result = execute(spec, dataset, options, track)
    except Exception as error:  # for example out of memory: the other runs may succeed
        is_expected = isinstance(error, UnusableError | NotFiniteError)
        reason = f" {error}" if is_expected else f"\n{traceback.format_exc()}"
        console.print(f"{spec.name} failed:{reason}")
        return False
    console.print(f"{spec.name}: {run.outcome(result)}, in {result.seconds:.1f} s")
    return True


def _measure(spec: RunSpec, dataset: data.Dataset, options: RunOptions, console: Console) -> None:
    """Measures the sharpness of a complete run unless it was measured before; a failure is printed."""
    if options.sharpness is None:
        return
    measured = (spec.folder, spec.config, dataset, options.sharpness)
    try:
        if measure_runs.has_measured(*measured):
            return
        if options.context.stop(0):
            raise Terminated("stopped before a measurement of sharpness: run the same command again to continue.")
        measure_runs.measure_finished_run(*measured, console)
    except ValueError as error:
        console.print(f"not measured: {error}")
    except Exception:  # for example out of memory: the other measurements may succeed
        console.print(f"{spec.name} was not measured:\n{traceback.format_exc()}")
