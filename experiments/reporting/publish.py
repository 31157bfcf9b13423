"""A report of runs, written into a folder and shown in the terminal."""

import re
from pathlib import Path

from rich.console import Console

from experiments.reporting.groups import Study, studies
from experiments.reporting.markdown import markdown
from experiments.reporting.page import page
from experiments.reporting.runs import Run
from experiments.reporting.section import DIRECT, Section, write_section
from experiments.reporting.tables import as_terminal


def publish(runs: list[Run], output: Path, console: Console) -> None:
    """Write `report.html`, `report.md` and the pictures of all runs into `output`, and print the tables.

    Args:
      runs: what to report; runs of different models or data sets make sections of their own.
      output: a folder; it is made where it is not there, and what has the same name is written anew.
      console: the terminal.

    Raises:
      ValueError: If something cannot be written.
    """
    document, web_page = output / "report.md", output / "report.html"
    try:
        sections = [write_section(study, _picture_folder(output, study)) for study in studies(runs)]
        document.write_text(markdown(sections, output), encoding="utf-8")
        web_page.write_text(page(sections), encoding="utf-8")
    except OSError as error:
        raise ValueError(
            f"report {error.filename} cannot be written: {error.strerror}. Choose another output."
        ) from error
    for section in sections:
        _print(section, console)
    console.print(f"report: {web_page}\nas Markdown: {document}")


def _picture_folder(output: Path, study: Study) -> Path:
    folder = output / "pictures" / re.sub(r"\W+", "-", study.title)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _print(section: Section, console: Console) -> None:
    console.print(f"\n{section.title}", style="bold")
    console.print(as_terminal(section.errors))
    console.print(section.caption)
    if section.direct:
        console.print(as_terminal(section.differences[: 1 + section.direct]))
        console.print(f"{DIRECT} The report has the others.")
    console.print(section.verdict)
    for rows in section.sharpness:
        console.print(as_terminal(rows))
    if section.flatness:
        console.print(section.flatness)
