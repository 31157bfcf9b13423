"""Conducting a study: from its cells to its report, or to a dry run of it."""

from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from experiments.cli.errors import exit_on_value_error
from experiments.cli.output_folder import make_folder, write_document
from experiments.cli.tables import as_markdown, as_terminal
from experiments.report import publish
from experiments.runner.finished_runs import find_runs
from experiments.study import Grid, RunOptions, RunSpec, Selection, Tuning, run_all, tuning
from experiments.study.dry_run import cost, show_runs, show_times
from experiments.study.run_spec import is_done


class StudyOptions(NamedTuple):
    """How studies are conducted.

    Attributes:
      selection: which of their runs are done.
      options: how each of them is done.
      stored: how many training examples the data set has.
      dry_run: whether to tell what would be done, only.
      time_steps_of: how many images the steps have that are timed for that; None: none are.
      console: the terminal.
    """

    selection: Selection
    options: RunOptions
    stored: int
    dry_run: bool
    time_steps_of: int | None
    console: Console


def conduct(study: Grid, session: StudyOptions) -> bool:
    """Run a study and report it.

    Returns:
      Whether all of its runs that are selected came to their end.
    """
    cells = exit_on_value_error(study.cells, session.stored)
    return _complete(study, cells, session)


def conduct_tuned(study: Grid, settings: Tuning, session: StudyOptions) -> bool:
    """Tune the cells of a study, run them with what was chosen, and report that: with and without momentum and decay.

    Trials that another part of the study has still to do stand in the way of a choice: then nothing is chosen.

    Returns:
      Whether all came to its end.
    """
    survived = [_tune(variant, settings, session) for variant in exit_on_value_error(tuning.variants, study).values()]
    return all(survived)


def _tune(study: Grid, settings: Tuning, session: StudyOptions) -> bool:
    tried = exit_on_value_error(tuning.trials, study, settings, session.stored)
    cells = [cell for trial in tried for cell in trial.cells]
    without_sharpness = session._replace(options=session.options._replace(sharpness=None))
    survived = _run(study, cells, without_sharpness)
    if session.dry_run:
        runs = len(study.strategies) * len(study.methods) * len(study.seeds)
        session.console.print(f"Then {runs} runs on the study's own seeds, with what is chosen.")
        return survived
    if left := [cell for cell in cells if not exit_on_value_error(is_done, cell)]:
        session.console.print(f"{len(left)} trials are left: nothing is chosen before all parts have done theirs.")
        return survived
    choices = tuning.choose(tried)
    rows = tuning.choice_rows(choices)
    session.console.print(as_terminal(rows))
    exit_on_value_error(write_document, study.output / "choices.md", f"{as_markdown(rows)}\n")
    chosen = tuning.tuned_cells(study, choices, session.stored)
    return _complete(study, chosen, session, chosen=("learning_rate", "rho"))


def _complete(study: Grid, cells: list[RunSpec], session: StudyOptions, chosen: tuple[str, ...] = ()) -> bool:
    report = study.output / "report"
    if not session.dry_run:
        exit_on_value_error(make_folder, report)
    survived = _run(study, cells, session)
    if session.selection.is_whole and not session.dry_run:
        finished = [cell.folder for cell in cells if exit_on_value_error(is_done, cell)]
        if finished:
            exit_on_value_error(_publish, finished, report, session.console, chosen)
    return survived


def _publish(folders: list[Path], report: Path, console: Console, chosen: tuple[str, ...]) -> None:
    publish(find_runs(folders), report, console, chosen=chosen)


def _run(study: Grid, cells: list[RunSpec], session: StudyOptions) -> bool:
    """Do what is selected of the cells, or tell what it is; whether none failed."""
    selected = exit_on_value_error(session.selection.of, cells, lambda cell: cost(cell.config, session.stored))
    if session.dry_run:
        show_runs(selected, session.stored, study.output, session.console)
        if session.time_steps_of is not None:
            show_times(selected, session.stored, session.time_steps_of, session.console)
        return True
    return not run_all(f"{study.model} on {study.dataset}", selected, session.options, session.console)
