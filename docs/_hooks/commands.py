"""The site's page of commands: writes the options of each program where the page has a mark for them.

The mark is the comment `options of experiments.NAME`, alone on a line.
"""

import importlib
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MARK = re.compile(r"^<!-- options of (experiments\.[\w.]+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replaces the marks on a page; MkDocs calls it for every page."""
    return MARK.sub(lambda found: options(found[1]), markdown)


def options(module: str) -> str:
    """Returns the description, the example and the options of a command as Markdown.

    Args:
      module: the module of the command, for example `experiments.train`.
    """
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))  # the programs are not installed
    is_package = (ROOT / module.replace(".", "/")).is_dir()
    command = importlib.import_module(f"{module}.__main__" if is_package else module).COMMAND
    parts = [command.description, f"```sh\n.venv/bin/{command.call} {command.example}\n```"]
    for title, inside in command.groups().items():
        parts.append(f"**{title[0].upper()}{title[1:]}**")
        parts += [f"{_term(option)}\n:   {_definition(option)}" for option in inside]
    return "\n\n".join(parts)


def _term(option: Any) -> str:
    *others, last = option.flags or ("",)
    return ", ".join([*(f"`{flag}`" for flag in others), f"`{f'{last} {option.value}'.strip()}`"])


def _definition(option: Any) -> str:
    from experiments.cli.tables import escaped  # noqa: PLC0415 - the path is set first

    return escaped(f"{option.meaning} {option.note}".strip())
