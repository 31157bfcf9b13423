"""The files that a run writes what it measures into, opened at its start or where it goes on."""

from pathlib import Path
from typing import Any

from experiments.config import Config
from experiments.runner.resume import Start
from experiments.training.writers import JsonLines, TensorBoard, read


def own_writers(config: Config, output: Path, start: Start, *, tensorboard: bool) -> list[Any]:
    """The file of the metrics, and what else is asked for, in a folder that says what is run."""
    if not start.is_again:
        config.save(output / "config.json")
    metrics = JsonLines(output / "metrics.jsonl", start.metrics_bytes if start.is_again else None)
    return [metrics, *([_tensorboard(output, start)] if tensorboard else [])]


def _tensorboard(output: Path, start: Start) -> TensorBoard:
    """TensorBoard's files from the start on; the record of an epoch that ended there is cut off, too, and added."""
    if not start.is_again:
        return TensorBoard(output / "tensorboard")
    board, step = TensorBoard(output / "tensorboard", start.progress.step), start.progress.step
    for record in read(output / "metrics.jsonl", "epoch"):
        if record["step"] == step:
            board.write(record)
    return board


def length_of(own: list[Any]) -> int:
    """How long the file of the metrics is, when all that was written is on disk."""
    if not own:
        return 0
    metrics, *boards = own
    for board in boards:
        board.flush()
    return metrics.length()
