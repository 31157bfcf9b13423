"""The benchmark, on a network that compiles quickly. The measured times themselves are not tested."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sam_optax
from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import benchmark_steps, cases, measure, program_costs, ratios
from experiments.benchmark.benchmark_steps import peak_memory
from experiments.benchmark.cases import Case
from experiments.benchmark.ratios import Figure
from experiments.config import Config


class Clock:
    """A clock that is advanced only by the benchmarked functions."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, []

    def subject(self, name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            self.now += seconds
            self.calls.append(name)

        return run


def figure(amounts: tuple[float, ...], reference: tuple[float, ...], target: float | None) -> Figure:
    return Figure("net", 32, "time", "SAM", "two gradients", target, "s", amounts, reference)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
    benchmark.main()


def test_every_round_times_every_subject_in_rotating_order() -> None:
    orders = [ratios.order(["a", "b", "c"], number) for number in range(6)]
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert [order[0] for order in orders[:3]] == ["a", "b", "c"]
    assert orders[3:] == [order[::-1] for order in orders[:3]]


def test_a_race_returns_the_seconds_of_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(ratios.time, "perf_counter", lambda: clock.now)
    seconds = ratios.race({"fast": clock.subject("fast", 0.125), "slow": clock.subject("slow", 8.0)}, rounds=3)
    assert seconds == {"fast": [0.125] * 3, "slow": [8.0] * 3}
    assert clock.calls[:2] == ["fast", "slow"]  # to warm up
    assert clock.calls[-6:] == ["fast", "slow", "slow", "fast", "slow", "fast"]


def test_short_functions_are_called_repeatedly_in_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(ratios.time, "perf_counter", lambda: clock.now)
    subject = clock.subject("short", 2**-10)
    assert ratios.race({"short": subject}, rounds=2) == {"short": [2**-10] * 2}
    assert len(clock.calls) == 1 + 1 + 2 * 256


def test_ratios_are_computed_within_each_round() -> None:
    measured = figure((2.0, 4.4, 9.6), (2.0, 4.0, 8.0), target=None)  # a machine that slows down
    np.testing.assert_allclose(measured.ratios, (1.0, 1.1, 1.2))
    assert measured.quartiles == pytest.approx((1.05, 1.1, 1.15))


@pytest.mark.parametrize(("target", "verdict"), [(1.1, "met"), (1.06, "in spread"), (1.04, "missed"), (None, "–")])
def test_the_verdict_depends_on_median_and_spread(target: float | None, verdict: str) -> None:
    assert figure((1.0, 1.1, 1.2), (1.0, 1.0, 1.0), target).verdict == verdict


def test_all_steps_make_the_same_update(tiny: str) -> None:
    posed = benchmark_steps.create(tiny, 10, (4, 4, 1), batch_size=8)
    method = sam_optax.sam(benchmark_steps.RADIUS)
    ours = benchmark_steps.ours(posed, method)
    others = [
        benchmark_steps.ours(posed, sam_optax.without_diagnostics(method)),
        benchmark_steps.ours(posed, method, options=benchmark_steps.MEMORY_FIRST),
        benchmark_steps.contrib(posed, opaque_mode=True),
        benchmark_steps.contrib(posed, opaque_mode=False),
    ]
    for step in (ours, *others):
        step()
        step()
    for step in others:
        chex.assert_trees_all_close(step.params, ours.params, rtol=1e-4, atol=1e-6)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(ours.params, posed.params, rtol=1e-4, atol=1e-6)


def test_peak_memory_counts_a_donated_argument_once() -> None:
    x = jnp.zeros(1000, jnp.float32)
    donated, kept = (jax.jit(lambda x: x + 1, donate_argnums=which).lower(x).compile() for which in (0, ()))
    assert peak_memory(donated) == 4000
    assert peak_memory(kept) == 8000


def test_peak_memory_counts_intermediate_arrays() -> None:
    x = jnp.zeros(1000, jnp.float32)
    compiled = jax.jit(lambda x: jnp.sum(jnp.sort(x) * jnp.cumsum(x))).lower(x).compile()
    assert peak_memory(compiled) >= 4000 + 4000


def test_the_loop_trains_its_whole_plan_and_records_every_update(tiny: str, tmp_path: Path) -> None:
    config = Config.from_settings(model=tiny, batch_plan="2x64", lr_schedule="cosine")
    with program_costs.subjects(config, cases.digits(), num_examples=256, folder=tmp_path) as subjects:
        for subject in subjects.values():
            subject()
            subject()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    records = [record for record in lines if record["kind"] == "step"]  # of two runs in succession
    assert [record["step"] for record in records] == 2 * list(range(2 * 256 // 64))
    assert len({record["loss"] for record in records}) == len(records)  # no batch and no state was used twice
    assert records[0]["learning_rate"] > records[7]["learning_rate"]


def test_the_program_prints_a_table_per_case_and_writes_the_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Known figures. Other tests measure each kind of figure, and the next test all of them."""
    known = [figure((1.0, 1.1, 1.2), (1.0, 1.0, 1.0), 1.2), figure((3.0, 3.3), (1.5, 1.5), None)]
    asked: list[tuple[str, int]] = []

    def measured(case: Case, rounds: int, say: Callable[[str], None]) -> list[Figure]:
        asked.append((case.model, rounds))
        say(f"timing {case.model}")
        return known

    monkeypatch.setattr(benchmark, "measure", measured)
    call(monkeypatch, "--models", "resnet18", "--peers", "--rounds", "11", "--output", str(tmp_path))
    printed = capsys.readouterr().out
    assert asked == [(case.model, 11) for case in cases.CASES["resnet18"]]
    assert "timing resnet18" in printed
    assert "resnet18, batch 32" in printed
    assert "met" in printed
    written = json.loads((tmp_path / "benchmark.json").read_text())
    assert written["settings"] == {"models": ["resnet18"], "peers": [], "rounds": 11, "output": str(tmp_path)}
    assert written["versions"]["jax"] == jax.__version__
    assert [each["amounts"] for each in written["figures"]] == [[1.0, 1.1, 1.2], [3.0, 3.3]]
    assert written["figures"][1]["median"] == pytest.approx(2.1)


@pytest.mark.parametrize("has_options", [False, True])
def test_the_figures_of_a_case_are_in_the_order_of_its_table(
    monkeypatch: pytest.MonkeyPatch, has_options: bool
) -> None:
    """Each kind of figure is measured in other tests and replaced by a known one here."""
    kinds = {"memory_figures": "memory", "worst_case_figures": "worst case"}
    for name, kind in kinds.items():
        monkeypatch.setattr(measure, name, lambda *arguments, kind=kind: [kind])
    for name, kind in {"loop_figure": "loop", "precision_figure": "bfloat16", "plan_figure": "plan"}.items():
        monkeypatch.setattr(program_costs, name, lambda *arguments, kind=kind: kind)
    monkeypatch.setattr(program_costs, "thrifty_figures", lambda *arguments: ["thrifty"])
    monkeypatch.setattr(measure, "_steps", lambda problem: {})
    monkeypatch.setattr(measure, "_step_figures", lambda *arguments: ["steps"])
    monkeypatch.setattr(measure, "race", lambda running, rounds: {measure._GSAM: [1.0] * rounds})
    monkeypatch.setattr(benchmark_steps, "repeated", lambda *arguments: None)
    monkeypatch.setattr(benchmark_steps, "gradient", lambda problem: None)
    problem = SimpleNamespace(params=None, model_state=None, batch=())
    monkeypatch.setattr(Case, "problem", lambda case, dataset: problem)
    case = Case("small_resnet", lambda: None, 16, loop_target=1.3)
    if has_options:
        case = dataclasses.replace(case, in_bfloat16=True, plan=(1.05, 512), worst_case_targets=(1.1, 1.0))
    lines: list[str] = []
    found = list(measure.measure(case, 11, lines.append))
    options = ["bfloat16", "plan", "plan", "worst case"] if has_options else []
    assert found == ["steps", "memory", "thrifty", "loop", *options]
    assert len(lines) == 1 + len(found)  # compiling is reported, too
    assert lines[1] == "small_resnet, batch 16: timing the steps, 11 rounds"


@pytest.mark.long
def test_the_program_prints_a_table_and_writes_what_it_measured(
    tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(cases.CASES, tiny, (Case(tiny, cases.digits, 128, loop_target=1.3, step_targets=(1.03, None)),))
    monkeypatch.setattr(ratios, "_TURN", 1e-4)
    monkeypatch.setattr(program_costs, "_TURN", 1e-4)
    call(monkeypatch, "--models", tiny, "--peers", "--rounds", "11", "--output", str(tmp_path))
    printed = capsys.readouterr().out
    assert "tiny, batch 128" in printed
    assert "training loop" in printed
    written = json.loads((tmp_path / "benchmark.json").read_text())
    assert written["settings"] == {"models": [tiny], "peers": [], "rounds": 11, "output": str(tmp_path)}
    assert written["versions"]["jax"] == jax.__version__
    assert written["cores"] >= 1
    for measured in written["figures"]:
        _check_figure(measured)
    compared = {(each["quantity"], each["subject"], each["reference"]): each for each in written["figures"]}
    assert len(compared) == len(written["figures"]) == 20
    assert ("time", "GSAM", "two gradients") in compared
    assert ("time", "SAM, memory first", "two gradients") in compared
    assert ("time", "training loop", "bare step") in compared
    assert ("time", "LookSAM, k 5", "SGD, momentum") in compared
    sam, against_contrib = compared["time", "SAM", "two gradients"], compared["time", "SAM", "contrib.sam, opaque"]
    unmeasured = compared["time", "SAM, without diagnostics", "contrib.sam, opaque"]
    assert sam["amounts"] == against_contrib["amounts"]
    assert against_contrib["reference_amounts"] == unmeasured["reference_amounts"]
    assert against_contrib["reference_amounts"] not in (sam["reference_amounts"], unmeasured["amounts"])
    memory = compared["peak memory", "SAM", "contrib.sam, default"]
    assert memory["amounts"] < memory["reference_amounts"]  # whose state holds a copy of the parameters
    assert ("memory above a gradient", "GSAM", "a copy of the parameters") in compared


def _check_figure(measured: dict[str, Any]) -> None:
    ratios = np.divide(measured["amounts"], measured["reference_amounts"])
    assert len(ratios) == measured["rounds"] == (11 if measured["quantity"] == "time" else 1)
    assert measured["median"] == pytest.approx(np.median(ratios))
    assert measured["quartiles"] == pytest.approx(list(np.quantile(ratios, (0.25, 0.75))))
    assert all(amount > 0 for amount in measured["amounts"])


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--rounds", "9"), "rounds is 9"),
        (("--models", "resnet19"), "resnet18"),
        (("--peers", "resnet50"), "vit_tiny"),
        (("--models", "--peers"), "are empty"),
        (("--models", "resnet18", "resnet18"), "each value once"),
        (("--output", "/dev/null/benchmark"), "cannot be used"),
    ],
)
def test_invalid_options_end_in_an_error_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], word: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, *arguments)
    assert stop.value.code == 2
    assert word in capsys.readouterr().err
