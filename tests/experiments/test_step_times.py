"""The hours of a study, from the updates at each batch size and the step time at that size."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from experiments import reproduce
from experiments.config import Config
from experiments.study import step_times
from experiments.study.dry_run import estimate, updates_by_kind
from tests.experiments.test_command_line import call

STUDY = ["--model", "tiny", "--methods", "sgd", "sam", "--strategies", "constant", "increasing", "--seeds", "0", "1"]
STUDY += ["--constant-plan", "2x128", "--increasing-plan", "1x32,1x64"]


def rows_of(text: str) -> dict[str, list[str]]:
    return {words[0]: words for line in text.splitlines() if (words := line.split())}


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, bool]]:
    """Replaces the time of a step: a millisecond per example and pass, and 10 ms per update; lists what was timed."""
    asked: list[tuple[str, int, bool]] = []

    def time_step(config: Config, batch_size: int, *, perturb: bool) -> float:
        asked.append((config.method, batch_size, perturb))
        return 0.01 + 0.001 * batch_size * (1 + perturb)

    monkeypatch.setattr(step_times, "time_step", time_step)
    return asked


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "sgd", "batch_plan": "2x32,1x64"},
        {"method": "sam", "batch_plan": "2x32,1x64,1x32"},
        {"method": "look_sam", "batch_plan": "3x64,2x128"},
        {"method": "sam", "batch_plan": "updates:10x16,7x64", "when": "last:0.3"},
        {"method": "sam", "batch_plan": "2x100", "when": "bernoulli:0.5", "validation": 0.25},
        {"method": "sgd", "batch_plan": "2x128", "passes": 3},
    ],
)
def test_updates_by_kind_add_up_to_the_estimate(settings: dict[str, Any]) -> None:
    config = Config.from_settings(**settings)
    kinds, whole = updates_by_kind(config, 512), estimate(config, 512)
    assert sum(kinds.values()) == whole.updates
    second = sum(updates for (_, perturb), updates in kinds.items() if perturb)
    assert whole.updates + config.second_pass_gradients * second == whole.gradient_evaluations
    assert {size for size, _ in kinds} == {stage.batch_size for stage in config.plan.stages}


def test_hours_are_updates_times_seconds_at_each_batch_size(
    tiny: str, timed: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    call(reproduce, monkeypatch, *STUDY, "--output", str(tmp_path / "study"), "--dry-run", "--time-steps")
    out = capsys.readouterr().out
    assert timed == [(method, size, method == "sam") for method in ("sgd", "sam") for size in (32, 64, 128)]
    updates = {128: 2 * 8, 32: 2 * 16, 64: 2 * 8}  # two seeds
    hours = {
        name: sum(count * (0.01 + 0.001 * size * passes) for size, count in updates.items()) / 3600
        for name, passes in (("SGD", 1), ("SAM", 2))
    }
    rows = rows_of(out)
    for name, expected in hours.items():
        assert rows[name][:3] == [name, "4", "64"]
        assert float(rows[name][-1]) == pytest.approx(expected, rel=0.01)
    assert rows["all"][:3] == ["all", "8", "128"]
    assert float(rows["all"][-1]) == pytest.approx(sum(hours.values()), rel=0.01)
    assert "32: 0.042, 64: 0.074, 128: 0.138" in " ".join(out.split())
    assert "Not included: compilation, evaluation, sharpness" in out
    assert not (tmp_path / "study").exists()


def test_updates_without_a_second_pass_are_timed_separately(timed: Any) -> None:
    config = Config.from_settings(method="look_sam", batch_plan="5x64")
    console = Console(file=io.StringIO(), width=200)
    step_times.show_hours([config], 512, console)
    assert timed == [("look_sam", 64, False), ("look_sam", 64, True)]
    hours = (8 * (0.01 + 0.128) + 32 * (0.01 + 0.064)) / 3600
    assert isinstance(console.file, io.StringIO)
    assert float(rows_of(console.file.getvalue())["all"][-1]) == pytest.approx(hours, rel=0.01)


def test_with_a_given_batch_size_only_that_size_is_timed(
    tiny: str, timed: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    call(reproduce, monkeypatch, *STUDY, "--output", str(tmp_path / "study"), "--dry-run", "--time-steps-of", "100")
    out = capsys.readouterr().out
    assert timed == [("sgd", 100, False), ("sam", 100, True)]
    assert float(rows_of(out)["SGD"][-1]) == pytest.approx(4 * 1024 * 0.11 / 100 / 3600, rel=0.01)
    assert float(rows_of(out)["SAM"][-1]) == pytest.approx(4 * 1024 * 0.21 / 100 / 3600, rel=0.01)
    assert "Only batches of 100 were timed" in out


def test_a_batch_size_that_cannot_be_timed_is_refused(
    tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["--output", str(tmp_path / "study"), "--dry-run", "--micro-batch", "16", "--time-steps-of", "100"]
    with pytest.raises(SystemExit, match="2"):
        call(reproduce, monkeypatch, *STUDY, *words)
    assert "micro_batch is 16" in capsys.readouterr().err


@pytest.mark.parametrize("settings", [{}, {"m": 32}, {"micro_batch": 32}, {"when": "every:2", "auto_augment": False}])
def test_a_step_is_timed(tiny: str, settings: dict[str, Any]) -> None:
    config = Config.from_settings(
        model=tiny, method="sam", batch_plan="4x64", lr_schedule="cosine", warmup_epochs=1.0, **settings
    )
    assert 0 < step_times.time_step(config, 64, perturb=True) < 10


def test_a_dry_run_omits_the_runs_in_the_file_of_finished_runs(
    tiny: str, timed: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = [*STUDY, "--output", str(tmp_path / "study"), "--finished", str(tmp_path / "finished.jsonl")]
    words += ["--sharpness.steps", "1", "--sharpness.examples", "16"]
    call(reproduce, monkeypatch, *words, "--only", "*-constant-*")
    call(reproduce, monkeypatch, *words, "--dry-run", "--time-steps")
    out = capsys.readouterr().out
    assert "4 of 8 runs are in" in out
    assert rows_of(out)["all"][:3] == ["all", "4", "96"]
    assert "sgd-constant-0" not in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--time-steps"], "time_steps is True: it needs --dry-run"),
        (["--time-steps-of", "64"], "time_steps_of is 64: it needs --dry-run"),
        (["--time-steps-of", "0", "--dry-run"], "time_steps_of is 0"),
        (["--time-steps-of", "8", "--time-steps", "--dry-run"], "time_steps_of is 8, and time_steps is True"),
    ],
)
def test_impossible_timing_settings_are_refused(  # noqa: PLR0917 - fixtures
    tiny: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: list[str],
    message: str,
) -> None:
    with pytest.raises(SystemExit) as stop:
        call(reproduce, monkeypatch, *STUDY, "--output", str(tmp_path / "study"), *words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
