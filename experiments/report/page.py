"""The report of a study: its sections, the page and the document that show them, and their files."""

import dataclasses
import datetime as dt
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from rich.console import Console

from experiments.cli.drawing import Picture
from experiments.cli.tables import Table, as_markdown, as_terminal, counted, escaped, figure_columns
from experiments.report import answers, curve_pictures, planned_contrasts, study_tables, summary
from experiments.report.claims import Claim, claims
from experiments.report.groups import Study, studies
from experiments.report.matches import shown_matches
from experiments.report.paired import Measure, measures_of
from experiments.report.pictures import table_pictures
from experiments.report.planned_contrasts import Outcome
from experiments.report.runs_table import read_table, table_of, write_epochs, write_table
from experiments.runner.finished_runs import Run
from experiments.runner.provenance import provenance
from experiments.training.atomic_write import refuse_link, write_whole
from experiments.training.exceptions import printable

_MAIN = ("Test error over epochs", "Sharpness over epochs", "Noise scale and batch size over epochs")
_MAIN += ("Test accuracy over epochs",)  # of reports that were made before test errors were drawn
_OTHERS = "Other quantities during training"
_FEW_RUNS = 60  # the document lists them one by one


@dataclass(frozen=True)
class About:
    """How a report was made, in `report.json`.

    Attributes:
      made: the date.
      version: the version of the program, with its commit.
      machine: the machine that made the report.
      command: the command.
      chosen: the settings that were chosen for each cell.
      pictures: the pictures, each with its study, title, caption, path and commit.
      again: when and with which version the tables were made again from `runs.csv`; empty if they were not.
    """

    made: str
    version: str
    machine: str
    command: str
    chosen: Sequence[str] = ()
    pictures: Sequence[dict[str, str]] = ()
    again: str = ""

    @classmethod
    def now(cls, command: str, chosen: Sequence[str]) -> "About":
        """Describes a report that this process makes."""
        here = provenance()
        machine = f"{here.processor}, {here.cores} cores, {here.device}"
        version = f"sam_optax {here.version}; jax {here.jax}, Python {sys.version.split()[0]}"
        return cls(dt.date.today().isoformat(), version, machine, command, tuple(chosen))

    def table(self, table: pd.DataFrame) -> Table:
        """Returns what the end of a report says."""
        seconds = float(np.nansum(np.asarray(table.get("seconds", []), float)))
        hours = f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"
        found = [("date", self.made), ("tables made again", self.again), ("program", self.version)]
        found += [("machine", self.machine), ("command", self.command)]
        found += [("training time", f"{hours}, summed over {len(table)} runs" if seconds else "")]
        shown = [(name, value or "not recorded") for name, value in found if value or name != "tables made again"]
        return Table([("this report", ""), *shown])


class Detail(NamedTuple):
    """A part of a section that the page folds away."""

    title: str
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True)
class Section:
    """What a report says of one study, in the order in which it is read.

    `over` is the number of seeds in words, and `limits` is what the study cannot show.
    """

    title: str
    subtitle: str
    headline: list[str]
    over: str
    planned: Table
    of_errors: list[Table]
    of_sharpness: list[Table]
    limits: list[str]
    errors: Table
    pictures: list[Picture]
    details: list[Detail]

    @property
    def all_pictures(self) -> list[Picture]:
        """The pictures of all parts."""
        return [*self.pictures, *(picture for detail in self.details for picture in detail.pictures)]


def publish(
    runs: Sequence[Run],
    output: Path,
    console: Console,
    *,
    chosen: tuple[str, ...] = (),
    contrasts: Path | None = None,
    command: str = "",
) -> None:
    """Writes `report.html`, `report.md`, `runs.csv`, `epochs.csv`, `report.json` and pictures, and prints the answers.

    Args:
      runs: the runs; runs of different models, data sets or other settings get sections of their own.
      output: the folder; files of the same name are replaced.
      console: the terminal.
      chosen: the settings that were chosen for each method and strategy.
      contrasts: the planned contrasts; None: `contrasts.toml` in the output folder, if it is there.
      command: the command that makes the report.

    Raises:
      ValueError: If something cannot be written, or if `chosen` names no setting.
    """
    table = table_of(runs)
    with _disk_errors(output):
        if contrasts and contrasts.resolve() != (output / "contrasts.toml").resolve():
            planned_contrasts.read_contrasts(contrasts)
            write_whole(output / "contrasts.toml", contrasts.read_text(encoding="utf-8"))  # for `publish_again`
        sections = _write(table, output, About.now(command, chosen), contrasts)
        write_table(table, output / "runs.csv")
        write_epochs(table, output / "epochs.csv")
    _print(sections, output, console)


def publish_again(file: Path, console: Console, here: About) -> None:
    """Makes the tables and the answers of a report again from its `runs.csv`; pictures of curves are kept.

    Raises:
      ValueError: If the report cannot be read or written.
    """
    table, path = read_table(file), file.parent / "report.json"
    try:
        about = About(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): make the report from the folders of its runs.") from error
    with _disk_errors(file.parent):
        again = dataclasses.replace(about, again=f"{here.made}, from runs.csv, with {here.version}")
        sections = _write(table, file.parent, again, None)
    _print(sections, file.parent, console)


@contextmanager
def _disk_errors(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename2 or error.filename or output  # a full disk names no file
        raise ValueError(f"report {where} cannot be written: {error.strerror}. Choose another output.") from error


def _write(table: pd.DataFrame, output: Path, about: About, contrasts: Path | None) -> list[Section]:
    stored = output / "contrasts.toml"
    path = contrasts or (stored if stored.exists() else None)
    found = studies(table, tuple(about.chosen))
    planned, home = _planned(table, found, path) if path else ([], None)
    sections = [_section(each, found, output, about, planned if each is home else []) for each in found]
    drawn = [_record(each, section, output, about) for section in sections for each in section.all_pictures]
    for template in ("report.md.jinja", "report.html.jinja"):
        write_whole(output / template.removesuffix(".jinja"), _render(template, sections, output, about.table(table)))
    about = dataclasses.replace(about, pictures=drawn)
    write_whole(output / "report.json", json.dumps(dataclasses.asdict(about), ensure_ascii=False, indent=1))
    return sections


def _planned(table: pd.DataFrame, found: Sequence[Study], path: Path) -> tuple[list[Outcome], Study]:
    """Returns the outcomes of the planned contrasts, and the study that has their cells, or else the first one."""
    cells, contrasts = planned_contrasts.cells_of(table, found), planned_contrasts.read_contrasts(path)
    folders = {folder for each in contrasts if each.cell in cells for folder in cells[each.cell].runs["folder"]}
    home = next((study for study in found if folders & set(study.runs["folder"])), found[0])
    return planned_contrasts.outcomes(contrasts, cells), home


def _section(study: Study, found: list[Study], output: Path, about: About, planned: Sequence[Outcome]) -> Section:
    folder = output / "pictures" / re.sub(r"\W+", "-", study.title)
    refuse_link(folder.parent)
    refuse_link(folder)
    folder.mkdir(parents=True, exist_ok=True)
    of_claims, measures = claims(study), measures_of(study)
    columns = answers.columns_of(of_claims)
    of_errors, *of_sharpness = [list(filter(None, answers.matrices(study, columns, each))) for each in measures]
    errors = [study_tables.error_table(match, study) for match in shown_matches(study)]
    drawn = [*table_pictures(study, columns, measures, folder), *curve_pictures.main_pictures(study, folder)]
    further = curve_pictures.further_pictures(study, folder)
    kept = _kept(study, output, about, {each.path for each in (*drawn, *further)})
    said = summary.sentences(study, columns, measures, planned)
    others = [*further, *(each for each in kept if each.title not in _MAIN)]
    details = _details(study, found, of_claims, measures, errors[1:])
    return Section(
        study.title,
        summary.subtitle(study, columns),
        said,
        f", over {counted('seed', len(study.seeds))} unless stated otherwise",
        planned_contrasts.contrast_table(planned),
        of_errors or [answers.pair_table(study) or answers.method_table(study)],
        [table for tables in of_sharpness for table in tables],
        summary.limits(study, of_claims, columns, is_planned=bool(planned)),
        errors[0],
        [*drawn, *(each for each in kept if each.title in _MAIN)],
        [each for each in (*details, Detail(_OTHERS, (), others)) if any(each.tables) or each.pictures],
    )


def _details(
    study: Study, found: list[Study], of_claims: list[Claim], measures: list[Measure], errors: list[Table]
) -> list[Detail]:
    return [
        Detail("Test error at other matches", errors),
        Detail("All comparisons", [answers.claim_table(of_claims, measures)]),
        Detail("Methods against one another", [answers.method_table(study)]),
        Detail("Pairs that differ only in strategy or only in method", [answers.pair_table(study)]),
        Detail("Differences from another part of this report", [answers.variant_table(study, found)]),
        Detail("Sharpness", study_tables.sharpness_tables(study)),
        Detail("Settings that were chosen", [study_tables.chosen_table(study)]),
        Detail("Plans that the noise decided", [study_tables.followed_table(study)]),
        Detail("Settings", [study_tables.setting_table(study)]),
        Detail("Runs", [study_tables.run_table(study)]),
    ]


def _kept(study: Study, output: Path, about: About, drawn: set[Path]) -> list[Picture]:
    """Returns the pictures of the earlier report that cannot be drawn again, since the folders of the runs are gone."""
    kept = []
    for each in about.pictures if about.again else ():
        path = output / each["path"]
        if each["study"] == study.title and path not in drawn and path.is_file():
            kept.append(Picture(each["title"], each["caption"], path, path.read_bytes(), each["commit"]))
    return kept


def _record(picture: Picture, section: Section, output: Path, about: About) -> dict[str, str]:
    of_program = re.search(r"commit ([\w-]+)", about.again or about.version)
    commit = picture.commit or (of_program.group(1) if of_program else "")
    path = picture.path.relative_to(output).as_posix()
    words = {"study": section.title, "title": picture.title, "caption": picture.caption}
    return {**words, "path": path, "commit": commit}


def _render(template: str, sections: list[Section], output: Path, about: Table) -> str:
    runs = next((len(d.tables[0].rows) - 1 for s in sections for d in s.details if d.title == "Runs"), 0)

    def path_of(picture: Picture) -> str:
        return quote(picture.path.relative_to(output).as_posix())

    loader = FileSystemLoader(Path(__file__).parent)
    made = Environment(loader=loader, autoescape=select_autoescape(["html.jinja"]), undefined=StrictUndefined)
    made.trim_blocks = made.lstrip_blocks = True
    made.filters |= {"escaped": escaped, "markdown": as_markdown, "figures": figure_columns}
    made.globals |= {"path_of": path_of, "list_runs": runs <= _FEW_RUNS}
    return made.get_template(template).render(sections=sections, about=about)


def _print(sections: Sequence[Section], output: Path, console: Console) -> None:
    for section in sections:
        console.print(f"\n{section.title}", style="bold")
        for words in section.headline:
            console.print(words)
        for table in filter(None, [section.planned, section.errors, *section.of_errors, *section.of_sharpness]):
            console.print(f"\n{table.title}", style="italic")
            console.print(as_terminal(table.text, console.width))
        for words in section.limits:
            console.print(words)
    console.print(printable(f"report: {output / 'report.html'}\nas Markdown: {output / 'report.md'}"))
