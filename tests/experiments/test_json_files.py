"""The files of runs are checked when they are read: errors name the file, the key, its value and the remedy."""

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.cli.tables import Table
from experiments.config import Config
from experiments.report.page import Section, _render
from experiments.runner import run, sharpness_records
from experiments.runner.finished_runs import find_runs
from experiments.runner.resume import reopened
from experiments.runner.run_curves import curves_of
from experiments.study import RunSpec
from experiments.study.run_spec import is_done
from experiments.training.exceptions import printable
from experiments.training.json_files import decode
from experiments.training.records import Notes
from experiments.training.writers import fault_of_metrics, read
from tests.experiments.sharpness_records import SMALL, add_lines, worst_case
from tests.experiments.written_runs import write_run

DEEP = "[" * 200_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", 0.05, method="sgd", batch_plan="4x128")


def changed(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refusal(reading: Callable[[], Any]) -> str:
    with pytest.raises(ValueError, match=r"\w") as found:
        reading()
    message = str(found.value)
    assert "\n" not in message
    assert len(message) < 500
    assert message.endswith((".", ")."))
    return message


RESULTS = [
    ({"test_error": None}, "test_error is null, expected a finite number from 0 to 1"),
    ({"test_error": "low"}, 'test_error is "low", expected a finite number from 0 to 1'),
    ({"test_error": float("nan")}, "test_error is NaN, expected a finite number from 0 to 1"),
    ({"test_error": 1.5}, "test_error is 1.5, expected"),
    ({"test_error": True}, "test_error is true, expected"),
    ({"train_loss": float("inf")}, "train_loss is Infinity, expected a finite number, or null"),
    ({"updates": "four"}, 'updates is "four", expected an integer from 1 to'),
    ({"updates": 4.0}, "updates is 4.0, expected an integer"),
    ({"updates": -1}, "updates is -1, expected an integer"),
    ({"updates": 10**30}, "updates is 1000000000000000000000000000000, expected an integer"),
    ({"seconds": -1.0}, "seconds is -1.0, expected a finite number of at least 0"),
    ({"colour": 3}, '"colour" is unknown'),
    ({"batch_plan": "4x128\x1b[2J"}, "batch_plan is "),
]


@pytest.mark.parametrize(("values", "words"), RESULTS, ids=lambda x: str(x)[:40])
def test_a_result_is_refused_by_its_key_and_value(folder: Path, values: dict[str, Any], words: str) -> None:
    changed(folder / "result.json", **values)
    message = refusal(lambda: run.result_of(folder))
    assert message.startswith(f"{folder}/result.json is damaged, or was made by another version ({words}")
    assert "remove that run, or start it again in another folder" in message
    assert f"remove it (result.json: {words}" in refusal(lambda: find_runs([folder]))
    cell = RunSpec("cell", Config.load(folder / "config.json"), folder)
    assert f"choose another output, or remove it (result.json: {words}" in refusal(lambda: is_done(cell))


def test_numbers_beyond_all_bounds_are_refused(folder: Path) -> None:
    path = folder / "result.json"
    path.write_text(path.read_text().replace("0.05", "1e400"))
    assert "test_error is Infinity, expected a finite number from 0 to 1" in refusal(lambda: run.result_of(folder))
    path.write_text(path.read_text().replace("Infinity", "0.1").replace('"updates": ', '"updates": ' + "9" * 5000))
    assert "result.json is damaged" in refusal(lambda: run.result_of(folder))


def test_a_missing_key_is_named(folder: Path) -> None:
    for file, name in (("result.json", "updates"), ("config.json", "seed")):
        values = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({key: value for key, value in values.items() if key != name}))
    assert "(updates is missing)" in refusal(lambda: run.result_of(folder))
    assert "(seed is missing)" in refusal(lambda: Config.load(folder / "config.json"))


CONFIGS = [
    ({"batch_plan": 3}, "batch_plan is 3, expected a text"),
    ({"batch_plan": "3"}, "batch_plan is '3'"),
    ({"learning_rate": "fast"}, 'learning_rate is "fast", expected a finite number'),
    ({"learning_rate": float("nan")}, "learning_rate is NaN, expected a finite number"),
    ({"seed": 0.5}, "seed is 0.5, expected an integer"),
    ({"seed": True}, "seed is true, expected an integer"),
    ({"auto_augment": 1}, "auto_augment is 1, expected true or false"),
    ({"size": 3}, '"size" is unknown'),
    ({"lr_schedule": "polynomial:2\x1c"}, "lr_schedule is "),
]


@pytest.mark.parametrize(("values", "words"), CONFIGS, ids=lambda x: str(x)[:40])
def test_a_config_is_refused_by_its_key_and_value(folder: Path, values: dict[str, Any], words: str) -> None:
    config = Config.load(folder / "config.json")
    changed(folder / "config.json", **values)
    path = folder / "config.json"
    for reading in (lambda: Config.load(path), lambda: reopened(folder, config, run.load(config))):
        message = refusal(reading)
        assert message.startswith(f"{path} is damaged, or was made by another version ({words}")
        assert message.endswith("start again in another folder.")
    assert f"remove it (config.json: {words}" in refusal(lambda: find_runs([folder]))


def test_a_config_of_an_earlier_version_gets_defaults_for_new_settings(folder: Path) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in values.items() if name not in ("ema", "micro_batch")}))
    assert Config.load(path).descent.ema == 0.0


@pytest.mark.parametrize("name", ["config.json", "result.json", "metrics.jsonl", "sharpness.jsonl"])
@pytest.mark.parametrize("damage", ["pipe", "folder", "brackets", "bytes"])
def test_foreign_files_cause_neither_a_hang_nor_a_crash(
    folder: Path, name: str, damage: str, request: pytest.FixtureRequest
) -> None:
    path = folder / name
    path.unlink(missing_ok=True)
    if damage == "pipe":
        os.mkfifo(path)
        request.addfinalizer(lambda: signal.alarm(0))
        signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"{path} is read as a pipe"))
        signal.alarm(20)  # reading a pipe without a writer would block forever
    elif damage == "folder":
        path.mkdir()
    elif damage == "brackets":
        path.write_text(DEEP)
    else:
        path.write_bytes(b"\xff\xfe")
    reading: dict[str, Callable[[], Any]] = {
        "config.json": lambda: Config.load(path),
        "result.json": lambda: run.result_of(folder),
        "metrics.jsonl": lambda: find_runs([folder]),
        "sharpness.jsonl": lambda: sharpness_records.read(folder),
    }
    assert name in refusal(reading[name])
    if name != "config.json" or damage in ("brackets", "bytes"):
        assert str(folder) in refusal(lambda: find_runs([folder]))


SHARPNESS = [
    ({"rho": None}, "rho is null, expected a finite number of at least 0"),
    ({"rho": "small"}, 'rho is "small"'),
    ({"norm": "l7"}, 'norm is "l7", expected one of linf, l2'),
    ({"kind": "flatness"}, 'kind is "flatness", expected one of worst_case'),
    ({"kind": None}, "kind is null"),
    ({"epoch": -1}, "epoch is -1, expected an integer"),
    ({"loss": {}}, "loss is {}, expected a finite number, or null"),
    ({"sharpness": [1.0]}, "sharpness is [1.0], expected a finite number, or null"),
    ({"adaptive": 0}, "adaptive is 0, expected true or false"),
]


@pytest.mark.parametrize(("values", "words"), SHARPNESS, ids=lambda x: str(x)[:40])
def test_a_record_of_sharpness_is_refused_by_its_line_key_and_value(
    folder: Path, values: dict[str, Any], words: str
) -> None:
    lines = [worst_case(SMALL, 1.0), worst_case(SMALL, None) | values]
    (folder / "sharpness.jsonl").write_text("\n".join(map(json.dumps, lines)))
    before = (folder / "sharpness.jsonl").read_bytes()
    for reading in (lambda: sharpness_records.read(folder), lambda: find_runs([folder]), lambda: added(folder)):
        message = refusal(reading)
        assert f"sharpness.jsonl is damaged, or was made by another version (line 2: {words}" in message
        assert message.endswith("remove it, and measure again.")
    assert (folder / "sharpness.jsonl").read_bytes() == before


def added(folder: Path) -> None:
    add_lines(folder, [worst_case(SMALL, 2.0)])


def test_metrics_without_a_first_line_are_refused(folder: Path) -> None:
    path = folder / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    words = "line 1: step is 1, expected 0: lines are missing"
    assert words in refusal(lambda: list(read(path, "step")))
    assert words in refusal(lambda: curves_of(folder))
    cell = RunSpec("cell", Config.load(folder / "config.json"), folder)
    assert words in refusal(lambda: is_done(cell))


METRICS = [
    ({"step": -1}, "step is -1"),
    ({"step": "0"}, 'step is "0"'),
    ({"epoch": None}, "epoch is null"),
    ({"batch_size": 0}, "batch_size is 0"),
    ({"grad_norm": "long"}, 'grad_norm is "long", expected a finite number, or null'),
    ({"grad_norm": float("inf")}, "grad_norm is Infinity"),
    ({"grad_norm": [1.0]}, "grad_norm is [1.0]"),
]


@pytest.mark.parametrize(("values", "words"), METRICS, ids=lambda x: str(x)[:40])
def test_a_record_of_metrics_is_refused_by_its_key_and_value(values: dict[str, Any], words: str) -> None:
    record = {"kind": "step", "step": 0, "epoch": 0.0, "batch_size": 16, "grad_norm": 1.0}
    assert fault_of_metrics(record, 0) is None
    assert str(fault_of_metrics(record | values, 0)).startswith(words)


def test_further_columns_of_numbers_are_read_by_design() -> None:
    record = {"kind": "epoch", "epoch": 1, "step": 4, "test_error": 0.5, "perturbed_loss": 1.5, "surrogate_gap": None}
    assert fault_of_metrics(record, 0) is None


PROGRESS = {"step": 3, "epoch": 0, "gradient_evaluations": 6, "counted": 3, "loss": 1.0, "error": 0.5}
NOTES = {"progress": PROGRESS, "config": {}, "data": "sum", "metrics_bytes": 7, "seconds": 1.0, "order": "batch_plan"}
FORGED = [
    ({"epoch": -1}, "epoch is -1"),
    ({"epoch": 10**30}, "epoch is 1000000000000000000000000000000"),
    ({"step": "3"}, 'step is "3"'),
    ({"loss": None}, "loss is null"),
    ({"noise": [3]}, "noise is not a list of lists of numbers"),
    ({"mood": 1}, '"mood" is unknown'),
]


def fault_of_notes(notes: dict[str, Any]) -> str | None:
    try:
        assert decode(notes, Notes).position.step == 3
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("values", "words"), FORGED, ids=lambda x: str(x)[:40])
def test_forged_notes_of_a_save_are_refused(values: dict[str, Any], words: str) -> None:
    assert fault_of_notes(NOTES) is None
    assert fault_of_notes(NOTES | {"progress": PROGRESS | {"loss": float("nan")}}) is None  # of a run that diverged
    assert str(fault_of_notes(NOTES | {"progress": PROGRESS | values})).startswith(words)


@pytest.mark.parametrize(
    "values", [{"seconds": -1.0}, {"metrics_bytes": -1}, {"data": 3}, {"config": None}, {"x": 1}, {"order": "other"}]
)
def test_wrong_notes_are_refused_by_the_name_of_the_field(values: dict[str, Any]) -> None:
    assert next(iter(values)) in str(fault_of_notes(NOTES | values))


def test_names_from_configs_and_folders_are_escaped_in_the_markdown_report() -> None:
    table = Table([("method", "x"), ("a|b<script>", "[link](http://x)")], "*bold* `code` _it_\n# no")
    title = "![](x)<img src=x>"
    section = Section(title, "", ["<b>no</b>"], "", Table([]), [table], [table], ["[no](x)"], table, [], [])
    text = _render("report.md.jinja", [section], Path("report"), Table([("this report", ""), ("command", "<b>")]))
    assert not re.search(r"(?<!\\)<|(?<!\\)\[(?!runs|epochs)|(?<!\\)[*`]", text)
    assert "| a\\|b\\<script\\> |" in text
    assert "\n# no" not in text


def test_control_characters_are_not_printed(tmp_path: Path) -> None:
    assert printable("a\x1b[2Jb\x07c\u202ed\x9be\nf") == "a[2Jbcde\nf"
    folder = write_run(tmp_path / "run\x1b[2J", 0.05, method="sgd", batch_plan="4x128")
    (folder / "result.json").write_text("{}")
    for reading in (lambda: run.result_of(folder), lambda: find_runs([folder])):
        assert "\x1b" not in refusal(reading)
