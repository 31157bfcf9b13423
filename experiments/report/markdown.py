"""A report in Markdown, its pictures beside it."""

from pathlib import Path
from urllib.parse import quote

from experiments.cli.tables import as_markdown, escaped
from experiments.report.section import Block, Section

_RUNS = "All runs, a line each, with what tells them apart: [runs.csv](runs.csv)."
_EPOCHS = "All epochs of all runs: [epochs.csv](epochs.csv)."


def markdown(sections: list[Section], folder: Path) -> str:
    """The text of a file in `folder`, without what is long."""
    return "\n".join([*(_section(section, folder) for section in sections), f"{_RUNS} {_EPOCHS}", ""])


def _section(section: Section, folder: Path) -> str:
    blocks = [_block(block, section, folder) for block in section.blocks if not block.is_folded]
    return "\n\n".join([f"# {escaped(section.title)}", *blocks]) + "\n"


def _block(block: Block, section: Section, folder: Path) -> str:
    parts = [f"## {escaped(block.heading)}"] if block.heading else []
    parts += [*map(as_markdown, block.tables), *map(escaped, block.words)]
    if block.picture is not None:
        path = block.picture.path.relative_to(folder).as_posix()
        parts.append(f"![{escaped(f'{block.picture.title}: {section.title}')}]({quote(path)})")
    return "\n\n".join(parts)
