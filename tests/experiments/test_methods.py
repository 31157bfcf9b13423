"""Every method of the command line trains with every policy that it supports."""

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import sam_optax
from experiments import reproduce_methods
from experiments import train as program_of_training
from experiments.benchmark import program_costs
from experiments.config import Config
from experiments.report.groups import studies
from experiments.report.paired import direct_pairs
from experiments.report.runs_table import table_of
from experiments.runner import run
from experiments.runner.finished_runs import find_runs
from experiments.runner.program import build
from experiments.runner.run_curves import curves_of
from experiments.study import Comparison
from experiments.study.dry_run import estimate
from experiments.training import checkpoint
from experiments.training.methods import METHODS
from experiments.training.writers import read
from sam_optax import trees
from tests.experiments.conftest import train
from tests.experiments.each_method import OF_EACH_KIND, each_method, each_of, supported_settings
from tests.selection import some_of

pytestmark = pytest.mark.usefixtures("unshifted_digits")

SETTINGS: dict[str, Any] = {"batch_plan": "3x64", "momentum": 0.9, "learning_rate": 0.05}
"""Batches of one size, because a step is compiled for each size."""


def steps_of(output: Path) -> list[dict[str, Any]]:
    return list(read(output / "metrics.jsonl", "step"))


@each_method
def test_every_method_trains_on_the_digits(tiny: str, tmp_path: Path, method: str) -> None:
    result = train(tmp_path, model=tiny, method=method, **supported_settings(method, **SETTINGS))
    epochs = list(read(tmp_path / "metrics.jsonl", "epoch"))
    assert epochs[-1]["train_loss"] < 0.8 * epochs[0]["train_loss"]
    assert result.test_error < 0.6  # chance level is 0.9
    assert all(record["grad_norm"] > 0 for record in steps_of(tmp_path))
    assert result.updates == 8 + 8 + 8


@each_of((name for name, method in METHODS.items() if method.uses and method.complete is None), quick=OF_EACH_KIND)
def test_a_radius_of_zero_gives_the_base_optimizer(tiny: str, tmp_path: Path, method: str) -> None:
    zero = train(tmp_path / method, model=tiny, method=method, rho=0.0, alpha=0.0, **SETTINGS)
    base = train(tmp_path / "sgd", model=tiny, method="sgd", **SETTINGS)
    assert zero.test_loss == pytest.approx(base.test_loss, rel=1e-4)


@pytest.mark.parametrize(
    ("when", "perturbed"),
    [
        pytest.param("always", range(20), marks=pytest.mark.long),
        ("every:7", (0, 7, 14)),
        pytest.param("after:15", range(15, 20), marks=pytest.mark.long),
        ("last:0.5", range(12, 20)),
        ("bernoulli:0.3", None),
        ("ae_sam", None),
    ],
)
@pytest.mark.parametrize(
    "method", ["sam", *(pytest.param(name, marks=pytest.mark.long) for name in ("look_sam", "wsam_decoupled"))]
)
def test_second_passes_are_made_at_the_steps_of_the_policy(
    tiny: str, tmp_path: Path, method: str, when: str, perturbed: Any
) -> None:
    growing = SETTINGS | {
        "batch_plan": "2x64,1x128"
    }  # here a fraction of the epochs is not the same fraction of the updates
    result = train(tmp_path, model=tiny, method=method, when=when, **growing)
    perturbed_steps = [record["step"] for record in steps_of(tmp_path) if record["cosine"] is not None]
    assert 0 < len(perturbed_steps) <= 20
    if perturbed is None:
        assert len(perturbed_steps) < 20
    else:
        assert perturbed_steps == list(perturbed)
    assert result.gradient_evaluations == 20 + len(perturbed_steps)
    assert all(record["grad_norm"] is not None for record in steps_of(tmp_path))


def test_look_sam_perturbs_every_fifth_step_by_default(tiny: str, tmp_path: Path) -> None:
    config = Config.from_settings(method="look_sam")
    assert (config.when, config.descent.rho, config.descent.alpha) == ("every:5", 0.1, 0.7)
    result = train(tmp_path, model=tiny, method="look_sam", **SETTINGS)
    assert result.gradient_evaluations == 24 + 5


@some_of(("always", "every:2", "ae_sam"), quick=("every:2",), argument="when")
def test_every_ascent_step_of_k_step_sam_counts_as_a_gradient(tiny: str, tmp_path: Path, when: str) -> None:
    result = train(tmp_path, model=tiny, method="k_step_sam", ascent_steps=3, when=when, **SETTINGS)
    perturbed_steps = [record["step"] for record in steps_of(tmp_path) if record["cosine"] is not None]
    assert result.gradient_evaluations == 24 + 3 * len(perturbed_steps)
    expected = estimate(
        Config.from_settings(model=tiny, method="k_step_sam", ascent_steps=3, when=when, **SETTINGS), 512
    )
    if when != "ae_sam":  # the estimate is an upper bound
        assert expected.gradient_evaluations == result.gradient_evaluations
    else:
        assert result.gradient_evaluations < expected.gradient_evaluations == 24 + 3 * 24


def test_k_step_sam_with_one_step_is_sam(tiny: str, tmp_path: Path) -> None:
    one = train(tmp_path / "one", model=tiny, method="k_step_sam", ascent_steps=1, **SETTINGS)
    sam = train(tmp_path / "sam", model=tiny, method="sam", **SETTINGS)
    assert one.test_loss == pytest.approx(sam.test_loss, rel=1e-4)
    assert one.gradient_evaluations == sam.gradient_evaluations


def test_radius_and_alpha_fall_with_the_learning_rate_to_their_minimum(tiny: str, tmp_path: Path) -> None:
    falling = {"rho": 0.1, "rho_min": 0.02, "alpha": 0.4, "alpha_min": 0.0}
    train(tmp_path, model=tiny, method="gsam", lr_schedule="cosine", **falling, **SETTINGS)
    steps = steps_of(tmp_path)
    rates = np.array([record["learning_rate"] for record in steps])
    assert rates[-1] < 0.5 * rates[0]
    first = Config.load(tmp_path / "config.json").descent.learning_rate
    np.testing.assert_allclose([record["rho"] for record in steps], 0.02 + 0.08 * rates / first, rtol=1e-5)
    np.testing.assert_allclose([record["alpha"] for record in steps], 0.4 * rates / first, rtol=1e-5)


def test_the_surrogate_gap_is_logged_where_there_is_a_second_pass(tiny: str, tmp_path: Path) -> None:
    train(tmp_path / "gsam", model=tiny, method="gsam", when="every:2", **SETTINGS)
    for record in steps_of(tmp_path / "gsam"):
        if record["step"] % 2:
            assert record["surrogate_gap"] is record["perturbed_loss"] is None
        else:
            assert record["surrogate_gap"] == pytest.approx(record["perturbed_loss"] - record["loss"], abs=1e-5)
            assert record["surrogate_gap"] > 0
    assert "surrogate_gap" in curves_of(tmp_path / "gsam")
    train(tmp_path / "sgd", model=tiny, method="sgd", **SETTINGS)
    assert all("surrogate_gap" not in record for record in steps_of(tmp_path / "sgd"))


def test_a_skipped_step_runs_a_program_without_a_second_pass(tiny: str) -> None:
    """The two programs of a step are compiled separately, and one has half of the matrix products."""
    config = Config.from_settings(model=tiny, method="sam", when="every:2", batch_plan="1x64")
    dataset = run.load(config)
    state, program = build(config, dataset)
    batch = program_costs.first_batch(config, dataset)
    hyperparameters = {name: np.float32(0.1) for name in ("learning_rate", "rho")}

    def products(perturb: bool) -> int:
        step: Any = program.step
        traced = step.compiled.trace(state, batch, hyperparameters, step.constants, perturb=perturb)
        return str(traced.jaxpr).count("dot_general")

    assert products(True) == 2 * products(False) > 0


def test_msam_is_evaluated_at_the_unshifted_parameters(tiny: str, tmp_path: Path) -> None:
    config = Config.from_settings(model=tiny, method="msam", rho=5.0, **SETTINGS)
    result = train(tmp_path, model=tiny, method="msam", rho=5.0, **SETTINGS)
    dataset = run.load(config)
    fresh, program = build(config, dataset)
    state = checkpoint.restore(tmp_path / "checkpoint", fresh)
    assert program.evaluate(state)["loss"] == pytest.approx(result.test_loss, rel=1e-5)
    unshifted = sam_optax.msam_eval_params(state.opt_state, state.params)
    offset = jax.tree.map(lambda a, b: a - b, state.params, unshifted)
    np.testing.assert_allclose(trees.norm(offset), 5.0, rtol=1e-3)
    sgd, _ = build(Config.from_settings(model=tiny, method="sgd", **SETTINGS), dataset)
    still = state._replace(params=unshifted, opt_state=sgd.opt_state)
    plain = build(Config.from_settings(model=tiny, method="sgd", **SETTINGS), dataset)[1]
    assert plain.evaluate(still)["loss"] == pytest.approx(result.test_loss, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"when": "sometimes"}, "when is 'sometimes': give one of always, every:5"),
        ({"when": "every"}, "when is 'every': give one of always, every:5"),
        ({"when": "always:3"}, "when is 'always:3': give one of always"),
        ({"when": "every:0"}, "when is 'every:0': k is 0: give a positive integer"),
        ({"when": "every:x"}, "when is 'every:x': give one of always, every:5"),
        ({"when": "last:1.5"}, "when is 'last:1.5': fraction is 1.5"),
        ({"when": "bernoulli:2"}, "when is 'bernoulli:2': probability is 2.0"),
        ({"when": "every:2", "method": "sgd"}, "sgd makes no second pass"),
        ({"when": "every:2", "method": "msam", "momentum": 0.9}, "msam makes no second pass"),
        ({"method": "msam", "momentum": 0.0}, "momentum is 0.0, and msam perturbs along the momentum"),
    ],
)
def test_incompatible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config.from_settings(**settings)


def test_adamw_has_the_momentum_that_msam_needs() -> None:
    assert Config.from_settings(method="msam", optimizer="adamw").descent.momentum == 0.0
    assert Config.from_settings(method="msam").descent.momentum == 0.9
    assert Config.from_settings(method="sam").descent.momentum == 0.0


@each_of(METHODS, quick=("vasso", "msam"))
def test_every_method_runs_from_the_command_line_with_default_settings(
    tiny: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, method: str
) -> None:
    arguments = ["--method", method, "--model", tiny, "--batch-plan", "1x128", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    program_of_training.main()
    assert run.result_of(tmp_path).updates == 4


def test_the_comparison_runs_all_methods_and_writes_a_table(
    tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    chosen = ["sgd", "look_sam", "msam", "sam_sps"]  # the last one has a learning rate of its own
    arguments = ["--model", tiny, "--output", str(tmp_path), "--batch-plan", "1x64", "--seeds", "0", "1"]
    arguments += ["--sharpness.steps", "1", "--sharpness.examples", "64"]
    monkeypatch.setattr(sys, "argv", ["program", *arguments, "--methods", *chosen])
    reproduce_methods.main()
    printed = capsys.readouterr().out
    assert "8 runs of tiny on digits, 8 of them to do" in printed
    table = (tmp_path / "methods.md").read_text()
    rows = [line.split("|")[1:-1] for line in table.splitlines() if line.startswith("|")][2:]
    assert [row[0].strip() for row in rows] == ["SGD", "LookSAM", "SAM-SPS", "MSAM"]
    assert [row[1].strip() for row in rows] == ["–", "0.1", "0.1", "0.3"]
    assert all(float(row[column].partition("±")[0]) > 0 for row in rows for column in (3, 4))  # sharpness, two radii
    assert [float(row[5]) for row in rows] == [1.0, 1.25, 2.0, 1.0]
    assert float(rows[0][6]) == 1.0
    assert "seeds 0, 1" in table


def test_a_report_of_methods_with_nothing_in_common_compares_what_it_can(tiny: str, tmp_path: Path) -> None:
    for method, settings in {"sgd": {}, "look_sam": {}, "msam": {}, "sam": {"when": "every:2"}}.items():
        for seed in (0, 1):
            train(tmp_path / f"{method}-{seed}", model=tiny, method=method, batch_plan="2x64", seed=seed, **settings)
    (study,) = studies(table_of(find_runs([tmp_path])))
    direct = {(each.first.row, each.second.row) for each in direct_pairs(study.groups)}
    assert ("LookSAM", "SGD") in direct
    assert ("LookSAM", "SAM, every 2") in direct
    assert not any("MSAM" in pair for pair in direct)  # AdamW already has a momentum
    cosine = curves_of(tmp_path / "look_sam-0")["cosine"]
    measured = [record["cosine"] for record in steps_of(tmp_path / "look_sam-0")]
    assert measured[1:5] == [None] * 4
    expected = [np.mean([x for x in measured[part] if x is not None]) for part in (slice(8), slice(8, 16))]
    np.testing.assert_allclose(cosine.values, expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rho": 0.1}, "rho is 0.1: omit it"),
        ({"methods": ("sam",)}, "give each once, and sgd, to which times are relative, first"),
        ({"methods": ("sgd", "sam", "sam")}, "give each once, and sgd, to which times are relative, first"),
        ({"methods": ("sgd", "adam")}, "methods is 'adam': choose one of sgd, sam"),
        ({"seeds": ()}, "seeds is"),
        ({"batch_plan": "x"}, "batch_plan is 'x'"),
    ],
)
def test_an_impossible_comparison_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Comparison.from_settings(output=tmp_path, **settings)
