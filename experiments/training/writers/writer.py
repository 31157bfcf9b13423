"""The protocol of a writer."""

from typing import Any, Protocol

Record = dict[str, Any]


class Writer(Protocol):
    """Takes the records of a run, one after another, and keeps them somewhere.

    A record of `kind` `step` comes after each update and holds its `step` (counted from 0), its `epoch` (a float), the
    batch size, the hyperparameters and what was measured; one of `kind` `epoch` comes after each epoch and holds the
    number of epochs and updates so far, and the mean training and test figures. All other values are numbers.
    """

    def write(self, record: Record) -> None:
        """Take one record."""
        ...

    def close(self) -> None:
        """Keep safe what was taken; no record comes after."""
        ...
