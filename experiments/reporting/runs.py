"""The finished runs in some folders."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from experiments.config import Config
from experiments.reporting.curves import Curves, read_curves
from experiments.run import UNFINISHED
from experiments.training.writers import Record


class Run(NamedTuple):
    """A run that came to its end.

    Attributes:
      folder: where it is.
      config: what was run.
      result: what came out.
      curves: what was measured, epoch by epoch.
    """

    folder: Path
    config: Config
    result: Record
    curves: Curves

    @property
    def diverged(self) -> bool:
        """Whether its loss was not finite at the end."""
        return self.result["train_loss"] is None or self.result["test_loss"] is None


def find_runs(folders: Iterable[Path]) -> list[Run]:
    """All finished runs in the folders and below them, in the order of their names.

    Raises:
      ValueError: If a folder is not there or holds no run, if a run is damaged, or if one is there twice.
    """
    found: dict[Path, Run] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder: give folders that hold runs.")
        inside = [path for path in sorted(folder.rglob("result.json")) if (path.parent / "config.json").is_file()]
        finished = [path.parent for path in inside if not any(part.endswith(UNFINISHED) for part in path.parts)]
        if not finished:
            raise ValueError(f"{folder} holds no finished run: give a folder that experiments.train has filled.")
        found |= {run.resolve(): _read(run) for run in finished}
    if not found:
        raise ValueError("runs is empty: give one folder or more that hold runs.")
    _refuse_twins(found.values())
    return list(found.values())


def _read(folder: Path) -> Run:
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        run = Run(folder, Config.load(folder / "config.json"), result, read_curves(folder / "metrics.jsonl"))
        complete = run.curves["step"][-1] == result["updates"] and not {"test_error", "seconds"} - result.keys()
        _ = run.diverged
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        complete = False
    if not complete:
        raise ValueError(f"{folder} holds a run that was damaged, or not made by this version: take it out.")
    return run


def _refuse_twins(runs: Iterable[Run]) -> None:
    """A run is a pure function of its config: the same one twice would count as two seeds."""
    first: dict[Config, Path] = {}
    for run in runs:
        if run.config in first:
            raise ValueError(f"{first[run.config]} and {run.folder} are one run twice: give one of them.")
        first[run.config] = run.folder
