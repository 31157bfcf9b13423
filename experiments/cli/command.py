"""A command, `python -m experiments.NAME`: its name, its arguments, and its help."""

import argparse
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import docstring_parser

from experiments.cli.option_groups import GROUPS, OTHER
from experiments.cli.options import Option, options_of

Result = TypeVar("Result")

_FLAGS_UP_TO = 26  # the column of the descriptions


@dataclass(frozen=True)
class Command(Generic[Result]):
    """A command: `python -m experiments.NAME`.

    Attributes:
      name: its name.
      arguments: the dataclass of its arguments.
      example: the options of an example of a whole command.
      essential: the options that most calls set, which the help shows first; if there are none, the help has one group.
      purpose: the title of the group of the essential options.
    """

    name: str
    arguments: type[Result]
    example: str
    essential: tuple[str, ...] = ()
    purpose: str = field(default="what to train", kw_only=True)

    @property
    def call(self) -> str:
        """The command, without options."""
        return f"python -m experiments.{self.name}"

    @property
    def word(self) -> str:
        """The command as one word, for which a shell completes the options."""
        return f"experiments.{self.name}"

    @property
    def description(self) -> str:
        """What the program does, from the docstring of its arguments."""
        found = docstring_parser.parse(self.arguments.__doc__ or "")
        return "\n\n".join(" ".join(part.split()) for part in (found.description or "").split("\n\n"))

    def groups(self, default: Result | None = None) -> dict[str, list[Option]]:
        """Returns the options by the titles of their groups; the essential options are the first group.

        Args:
          default: the defaults; by default those of the class.
        """
        options = {option.name: option for option in options_of(self.arguments, default)}
        if not self.essential:
            return {"options": list(options.values())}
        first = {self.purpose: [options.pop(name) for name in self.essential]}
        others = {title: [each for name in names for each in _named(name, options)] for title, names in GROUPS.items()}
        grouped = {option.name for inside in others.values() for option in inside}
        others[OTHER] = [option for name, option in options.items() if name not in grouped]
        return first | {title: inside for title, inside in others.items() if inside}

    def help(self, default: Result | None = None) -> str:
        """Returns what `--help` prints: a description, the options by groups, and an example."""
        groups = self.groups(default)
        parser = argparse.ArgumentParser(
            usage=f"{self.call} {_usage(option for inside in groups.values() for option in inside)}",
            description=_wrapped(self.description),
            epilog=f"example:\n  {self.call} {self.example}",
            formatter_class=_layout,
            add_help=False,
        )
        for title, options in groups.items():
            _add(parser, title, options)
        return parser.format_help()


def _layout(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=_FLAGS_UP_TO)


def _wrapped(text: str) -> str:
    """Breaks the lines of a text at the width that argparse uses, and keeps its paragraphs."""
    width = shutil.get_terminal_size().columns - 2
    return "\n\n".join(textwrap.fill(part, width) for part in text.split("\n\n"))


def _add(parser: argparse.ArgumentParser, title: str, options: Sequence[Option]) -> None:
    group: Any = parser.add_argument_group(title)
    for option in options:
        words = " ".join(filter(None, (option.meaning, option.note))).replace("%", "%%")
        if not option.flags:
            group.add_argument(option.name, metavar=option.value, help=words)
        elif option.value:
            group.add_argument(*option.flags, metavar=option.value, help=words)
        else:
            group.add_argument(*option.flags, action="store_true", help=words)


def _usage(options: Iterable[Option]) -> str:
    """Returns the arguments that a call needs, followed by `[options]`."""
    needed = [
        " ".join(filter(None, (*option.flags[:1], option.value)))
        for option in options
        if option.is_required or not option.flags
    ]
    return " ".join([*needed, "[options]"])


def _named(name: str, options: Mapping[str, Option]) -> list[Option]:
    """Returns the options that an entry of the table of groups stands for."""
    if name.endswith("."):
        return [option for each, option in options.items() if each.startswith(name)]
    return [options[name]] if name in options else []
