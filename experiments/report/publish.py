"""A report of runs, written into a folder and shown in the terminal."""

import re
from pathlib import Path

from rich.console import Console

from experiments.cli.tables import as_terminal
from experiments.report.epochs_file import write_epochs
from experiments.report.groups import Study, studies
from experiments.report.markdown import markdown
from experiments.report.page import page
from experiments.report.runs_file import write_runs
from experiments.report.section import Section, write_section
from experiments.report.variants import base_of
from experiments.runner.finished_runs import Run
from experiments.training.atomic_write import refuse_link, write_whole
from experiments.training.exceptions import printable

_FEW_RUNS = 60  # so many stand in the document one by one


def publish(runs: list[Run], output: Path, console: Console, chosen: tuple[str, ...] = ()) -> None:
    """Write `report.html`, `report.md`, `runs.csv`, `epochs.csv` and the pictures into `output`, and print the tables.

    Args:
      runs: what to report; runs of different models or data sets, or of different settings beside method and strategy,
        make sections of their own.
      output: a folder; it is made where it is not there, and what has the same name is written anew.
      console: the terminal.
      chosen: settings that were chosen for each method and strategy: they tell no two of them apart.

    Raises:
      ValueError: If something cannot be written, or if `chosen` names no setting.
    """
    document, web_page = output / "report.md", output / "report.html"
    found = studies(runs, chosen)
    try:
        sections = [_section(study, output, found) for study in found]
        write_whole(document, markdown(sections, output))
        write_whole(web_page, page(sections))
        every_run = [run for study in found for run in study.runs]
        write_runs(every_run, output / "runs.csv")
        write_epochs(every_run, output / "epochs.csv")
    except OSError as error:
        where = error.filename2 or error.filename or output  # a full disk names no file
        raise ValueError(f"report {where} cannot be written: {error.strerror}. Choose another output.") from error
    for section in sections:
        _print(section, console)
    console.print(printable(f"report: {web_page}\nas Markdown: {document}"))


def _section(study: Study, output: Path, found: list[Study]) -> Section:
    list_runs = sum(len(each.runs) for each in found) <= _FEW_RUNS
    return write_section(study, _picture_folder(output, study), base_of(study, found), list_runs=list_runs)


def _picture_folder(output: Path, study: Study) -> Path:
    folder = output / "pictures" / re.sub(r"\W+", "-", study.title)
    refuse_link(folder.parent)
    refuse_link(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _print(section: Section, console: Console) -> None:
    console.print(f"\n{section.title}", style="bold")
    for block in section.blocks:
        if block.is_printed:
            if block.heading:
                console.print(f"\n{block.heading}", style="italic")
            for rows in block.tables:
                console.print(as_terminal(rows))
            for words in block.words:
                console.print(words)
