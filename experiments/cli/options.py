"""The options of a program, read from the dataclass of its arguments."""

import dataclasses
import functools
import shlex
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docstring_parser
import tyro

_VALUES = {int: "INT", float: "FLOAT", str: "STR", Path: "PATH", bool: "{True,False}", types.NoneType: "None"}


@dataclasses.dataclass(frozen=True)
class Option:
    """An option or a positional argument of a program.

    Attributes:
      name: its name, for example rho_min or saving.every.
      flags: the words that set it on the command line; empty for a positional argument.
      value: the form of its value, for example INT, or the name of a positional argument; empty for a switch.
      meaning: what it does.
      default: the default as text; empty if there is none, or if `meaning` describes it.
      is_required: whether it must be given.
    """

    name: str
    flags: tuple[str, ...]
    value: str
    meaning: str
    default: str
    is_required: bool

    @property
    def note(self) -> str:
        """What follows the meaning in parentheses: that the option is required, or its default."""
        if self.is_required:
            return "(required)"
        return f"(default: {self.default})" if self.default else ""


def options_of(arguments: type[Any], default: Any = None, prefix: str = "") -> Iterator[Option]:
    """Yields the options of a program in the order of the fields.

    A field that is a dataclass contributes the options of its own fields. Their names start with the name of the field,
    unless it has `tyro.conf.arg(name="")`.

    Args:
      arguments: a dataclass.
      default: an instance with the defaults; by default those of the class.
      prefix: what the names of the options start with.
    """
    hints, meanings = typing.get_type_hints(arguments, include_extras=True), _meanings(arguments)
    for field in dataclasses.fields(arguments):
        kind, notes = _unwrapped(hints[field.name])
        value = _default(field) if default is None else getattr(default, field.name)
        if dataclasses.is_dataclass(kind):
            is_flat = any(getattr(note, "name", None) == "" for note in notes)
            inside = prefix if is_flat else f"{prefix}{field.name}."
            yield from options_of(
                typing.cast("type[Any]", kind), None if value is dataclasses.MISSING else value, inside
            )
        else:
            is_positional = tyro.conf.Positional in notes
            yield _option(f"{prefix}{field.name}", kind, value, meanings.get(field.name, ""), is_positional)


def _option(name: str, kind: Any, value: Any, meaning: str, is_positional: bool) -> Option:
    is_switch = kind is bool and not is_positional
    flag = name.replace("_", "-")
    flags = (f"--{flag}", f"--{_negated(flag)}") if is_switch else (f"--{flag}",)
    is_required = value is dataclasses.MISSING
    shown = "" if is_required or (is_switch and not value) else _as_text(value)
    form = "" if is_switch else _form(kind, show_none=bool(shown))
    if is_positional:
        flags, form = (), f"[{flag.upper()} ...]" if typing.get_origin(kind) is tuple else flag.upper()
    return Option(name, flags, form, meaning, shown, is_required)


def _negated(flag: str) -> str:
    """Returns the flag that switches an option off: `no-` follows the prefix of the name."""
    section, dot, last = flag.rpartition(".")
    return f"{section}{dot}no-{last}"


def _unwrapped(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Returns a type without annotations, and the annotations."""
    return (hint.__origin__, hint.__metadata__) if typing.get_origin(hint) is typing.Annotated else (hint, ())


def _default(field: "dataclasses.Field[Any]") -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


@functools.cache
def _meanings(arguments: type[Any]) -> dict[str, str]:
    """Returns the descriptions of a dataclass's fields, from its docstring and those of the classes that it extends."""
    meanings: dict[str, str] = {}
    for cls in reversed(arguments.__mro__):
        for found in docstring_parser.parse(cls.__doc__ or "").params if dataclasses.is_dataclass(cls) else ():
            meanings[found.arg_name] = " ".join((found.description or "").split())
    return meanings


def _form(kind: Any, *, show_none: bool) -> str:
    """Returns the form of a value of a type: INT, INT or None, or [INT ...] for any number of values."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_form(each, show_none=False) for each in inside if show_none or each is not types.NoneType)
    if origin is tuple:
        each = [_form(one, show_none=False) for one in inside if one is not Ellipsis]
        return f"[{' '.join(each)} ...]" if Ellipsis in inside else " ".join(each)
    return _VALUES[kind]


def _as_text(value: Any) -> str:
    """Returns a default as it is written on the command line; empty for None and for no values."""
    if isinstance(value, tuple):
        return " ".join(_as_text(each) for each in value)
    return "" if value is None else shlex.quote(str(value))
