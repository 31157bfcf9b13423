"""What a program needs before its imports, which take seconds: it is ready for signals, for any terminal, for any name.

`experiments/__init__.py` calls it; it imports the standard library alone.
"""

import os
import sys

from experiments import standard_streams
from experiments.training import preemption

_DEVICES = "JAX_NUM_CPU_DEVICES"
_MOST_DEVICES = 1024


def prepare() -> None:
    """Prepare the process; where JAX could not be imported, it ends with a sentence and exit code 2."""
    preemption.end_at_once()
    standard_streams.prepare()
    try:
        check_environment()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def check_environment() -> None:
    """Refuse numbers of devices with which JAX cannot be imported, or finds no device.

    Raises:
      ValueError: If there is such a number in the environment.
    """
    text = os.environ.get(_DEVICES)
    if text is None or text == "-1":  # as many as JAX takes by itself
        return
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= _MOST_DEVICES):
        raise ValueError(f"{_DEVICES} is {text!r} in the environment: give an integer from 1 to {_MOST_DEVICES}.")
