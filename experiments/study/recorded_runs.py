"""Records the finished runs of a study in a file, and restores the folders of runs that the file has."""

import json
import secrets
import shutil
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from experiments.cli.output_folder import make_folder
from experiments.config import Config
from experiments.runner import finished_file, run, sharpness_records
from experiments.runner.finished_file import FinishedRun
from experiments.runner.metrics_summary import summary_of
from experiments.runner.provenance import provenance
from experiments.study.run_spec import RunSpec
from experiments.training.atomic_write import write_whole
from experiments.training.exceptions import UnusableError, disk_errors_as_unusable
from experiments.training.json_files import encode
from experiments.training.writers import JsonLines

Recorded = dict[Config, FinishedRun]
"""The runs in a file by their `effective` config."""


def restore(specs: Iterable[RunSpec], path: Path) -> Recorded:
    """Reads a file of finished runs, and restores the folder of each run that the file has and that has no folder.

    A restored folder has `config.json`, `result.json`, `sharpness.jsonl`, and `metrics.jsonl` with the epochs and some
    steps. It has no trained state.

    Args:
      specs: the runs of the study; other runs in the file are ignored.
      path: the file, which need not exist.

    Returns:
      All runs in the file.

    Raises:
      UnusableError: If the file is damaged or cannot be written, if a folder cannot be written, or if the folder of a
        run has another result than the file.
    """
    make_folder(path.parent)
    finished_file.check_writable(path)
    recorded = finished_file.read(path)
    for spec in specs:
        finished = recorded.get(spec.config.effective)
        if finished is None:
            continue
        if not spec.folder.exists():
            _write_folder(spec, finished)
        elif (spec.folder / "result.json").exists() and not finished.is_same_result(run.result_of(spec.folder)):
            message = f"{spec.folder} and {path} have different results of the run {finished.name}"
            raise UnusableError(f"{message}: remove the folder, or the line of the run.")
    return recorded


def record(spec: RunSpec, path: Path, recorded: Recorded) -> FinishedRun:
    """Appends a complete run to the file, unless the file has the run with all measurements of its sharpness.

    Args:
      spec: the run.
      path: the file.
      recorded: the runs in the file.

    Returns:
      The run as the file has it.

    Raises:
      UnusableError: If the folder is damaged, or if the file cannot be written.
    """
    key, measured = spec.config.effective, sharpness_records.read(spec.folder)
    before = recorded.get(key)
    if before is not None and all(each in before.sharpness for each in measured):
        return before
    summary = summary_of(spec.folder / "metrics.jsonl")
    finished = FinishedRun(spec.name, key, run.result_of(spec.folder), summary, measured, provenance())
    finished_file.append(path, finished)
    return finished


def _write_folder(spec: RunSpec, finished: FinishedRun) -> None:
    """Writes the folder under another name, which reports ignore, and renames it when it is complete."""
    make_folder(spec.folder.parent)
    partial = spec.folder.with_name(f"{spec.folder.name}.{secrets.token_hex(4)}{run.UNFINISHED}")
    with disk_errors_as_unusable(spec.folder):
        try:
            partial.mkdir()
            _write_files(spec, finished, partial)
            partial.rename(spec.folder)
        except OSError:
            if not spec.folder.is_dir():  # otherwise another process has restored it at the same time
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _write_files(spec: RunSpec, finished: FinishedRun, folder: Path) -> None:
    spec.config.save(folder / "config.json")
    with closing(JsonLines(folder / "metrics.jsonl")) as metrics:
        for each in finished.summary.records():
            metrics.write(each)
    if finished.sharpness:
        sharpness_records.add(folder, finished.sharpness)
    write_whole(folder / "result.json", json.dumps(encode(finished.result), indent=2))
