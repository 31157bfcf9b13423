"""A report in Markdown, its pictures beside it."""

from pathlib import Path

from experiments.reporting.section import Section
from experiments.reporting.tables import as_markdown


def markdown(sections: list[Section], folder: Path) -> str:
    """The text of a file in `folder`."""
    return "\n".join(_section(section, folder) for section in sections)


def _section(section: Section, folder: Path) -> str:
    parts = [f"# {section.title}", section.caption, as_markdown(section.errors), section.verdict]
    if len(section.differences) > 1:
        parts.append(as_markdown(section.differences))
    if section.sharpness:
        parts += ["## Sharpness", *map(as_markdown, section.sharpness), section.flatness]
    for picture in section.pictures:
        path = picture.stem.with_suffix(".png").relative_to(folder).as_posix()
        parts += [f"## {picture.title}", picture.caption, f"![{picture.title}: {section.title}]({path})"]
    parts += ["## Settings", as_markdown(section.settings), "## Runs", as_markdown(section.runs)]
    return "\n\n".join(parts) + "\n"
