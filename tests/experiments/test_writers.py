"""Where a run's records go."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.cli.output_folder import claim
from experiments.config import Config
from experiments.runner import run
from experiments.training import writers
from experiments.training.exceptions import UnusableError
from experiments.training.writers import JsonLines, RunWriters, TensorBoard, plain, read
from tests.experiments.interrupted_runs import execute, killed

STEP = {"kind": "step", "step": 0, "epoch": 0.5, "loss": np.float32(1.5), "cosine": np.float32(math.nan)}
EPOCH = {"kind": "epoch", "epoch": 1, "step": 1, "test_error": 0.25}


class Kept:
    """A user-defined writer."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.closed = False

    def write(self, record: dict[str, Any]) -> None:
        assert not self.closed
        self.records.append(record)

    def close(self) -> None:
        self.closed = True


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The curves that TensorBoard shows: a new session discards earlier points from its step on."""
    import tensorflow as tf  # noqa: PLC0415

    points: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("events.*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            if event.session_log.status == event.session_log.START:
                points = {name: [each for each in curve if each[0] < event.step] for name, curve in points.items()}
            for value in event.summary.value:
                points.setdefault(value.tag, []).append((event.step, value.simple_value))
    return points


def test_json_lines_are_read_by_kind_and_nonfinite_values_are_null(tmp_path: Path) -> None:
    writer = JsonLines(tmp_path / "metrics.jsonl")
    writer.write(STEP)
    writer.write(EPOCH)
    writer.close()
    assert list(read(tmp_path / "metrics.jsonl", "step")) == [STEP | {"cosine": None}]
    assert list(read(tmp_path / "metrics.jsonl", "epoch")) == [EPOCH]


def test_json_lines_overwrite_nothing(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("mine")
    with pytest.raises(FileExistsError):
        JsonLines(tmp_path / "metrics.jsonl")


@pytest.mark.parametrize("value", [1 / 3, np.float32(1e-7), np.float64(123456789.0), 3, "cosine", True])
def test_numbers_keep_seven_digits(value: Any) -> None:
    assert json.loads(json.dumps(plain(value))) == (pytest.approx(value, rel=5e-7) if value != "cosine" else value)


def test_tensorboard_has_a_curve_per_metric_over_updates(tmp_path: Path) -> None:
    writer = TensorBoard(tmp_path)
    writer.write(STEP)
    writer.write(STEP | {"step": 1, "loss": np.float32(0.5)})
    writer.write(EPOCH)
    writer.close()
    points = curves(tmp_path)
    assert points["step/loss"] == [(0, 1.5), (1, 0.5)]
    assert points["epoch/test_error"] == [(1, 0.25)]
    assert set(points) == {"step/epoch", "step/loss", "epoch/epoch", "epoch/test_error"}


def test_event_files_of_the_same_second_are_sorted_by_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(writers.time, "time", lambda: 1_750_000_000.5)
    made: list[Path] = []
    for process, step in ((9, None), (8, 0), (7, 8), (6, 12), (5, 112), (6, 112)):
        monkeypatch.setattr(writers.os, "getpid", lambda process=process: process)
        TensorBoard(tmp_path, step).close()
        made += [path for path in tmp_path.iterdir() if path not in made]
    assert len(made) == 6
    assert made == sorted(made)


def test_every_writer_gets_all_records_and_is_closed(tiny: str, tmp_path: Path) -> None:
    config = Config.from_settings(model=tiny, method="sam", batch_plan="1x128,1x256")
    output, kept, board = tmp_path / "run", Kept(), TensorBoard(tmp_path / "board")
    run.execute(config, run.load(config), claim(output), run.RunContext(writers=(kept, board)))
    assert kept.closed
    for kind in ("step", "epoch"):
        written = list(read(output / "metrics.jsonl", kind))
        mine = [record for record in kept.records if record["kind"] == kind]
        assert [{name: plain(value) for name, value in record.items()} for record in mine] == written
    losses = [(record["step"], pytest.approx(float(record["loss"]))) for record in records_of_kind(kept, "step")]
    assert curves(tmp_path / "board")["step/loss"] == losses


def test_tensorboard_records_are_on_disk_after_a_flush_and_at_the_end_of_an_epoch(tmp_path: Path) -> None:
    board, steps = TensorBoard(tmp_path), range(100)
    for step in steps:
        board.write(STEP | {"step": step})
    board.flush()
    assert curves(tmp_path)["step/loss"] == [(step, 1.5) for step in steps]
    board.write(EPOCH)
    assert curves(tmp_path)["epoch/test_error"] == [(1, 0.25)]
    board.close()


def test_all_records_are_on_disk_before_a_save(tmp_path: Path) -> None:
    files = RunWriters.create(tmp_path, None, tensorboard=True)
    for writer in files.writers:
        writer.write(STEP)
    assert files.flush() == (tmp_path / "metrics.jsonl").stat().st_size > 0
    assert curves(tmp_path / "tensorboard")["step/loss"] == [(STEP["step"], STEP["loss"])]
    for writer in files.writers:
        writer.close()


@pytest.mark.parametrize("damage", [b"\xff", b"{", b"[]", b'{"step": 1}', b""], ids=repr)
def test_an_invalid_line_is_named(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\n".join([json.dumps(EPOCH).encode(), damage, json.dumps(EPOCH).encode()]))
    records = read(path, "epoch")
    assert next(records) == EPOCH
    with pytest.raises(
        UnusableError, match=r"jsonl is damaged, or .* \(line 2 is not a record\): remove the folder of the run, or"
    ):
        next(records)


@pytest.mark.parametrize(("step", "every"), [(3, None), (5, 4), (6, 5)])
def test_a_resumed_run_has_every_point_once(tiny: str, tmp_path: Path, step: int, every: int | None) -> None:
    config = Config.from_settings(model=tiny, method="sgd", batch_plan="2x128")
    killed(tmp_path / "run", config, step, every, tensorboard=True)
    execute(tmp_path / "run", config, tensorboard=True)
    execute(tmp_path / "whole", config, tensorboard=True)
    found, wanted = curves(tmp_path / "run" / "tensorboard"), curves(tmp_path / "whole" / "tensorboard")
    assert found.keys() == wanted.keys()
    for name, points in wanted.items():
        assert [at for at, _ in found[name]] == [at for at, _ in points], name
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in points], rel=1e-6)


def test_writers_are_closed_when_a_run_is_interrupted(tiny: str, tmp_path: Path) -> None:
    def interrupted(batches: Any) -> Any:
        yield from list(batches)[:2]
        raise KeyboardInterrupt

    config, kept = Config.from_settings(model=tiny, batch_plan="2x256"), Kept()
    with pytest.raises(KeyboardInterrupt):
        run.execute(config, run.load(config), claim(tmp_path), run.RunContext(track=interrupted, writers=(kept,)))
    assert kept.closed
    assert not (tmp_path / "result.json").exists()


def records_of_kind(kept: Kept, kind: str) -> list[dict[str, Any]]:
    return [record for record in kept.records if record["kind"] == kind]
