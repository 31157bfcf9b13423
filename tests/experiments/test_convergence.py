"""The convergence study: full gradient norms, a file of them per run, fitted rates, and the program."""

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.config import Config
from experiments.convergence import __main__ as convergence
from experiments.convergence.document import rate_rows
from experiments.convergence.gradient_norms import Curve, fitted_slope, late_rate
from experiments.convergence.network_study import (
    NetworkStudy,
    curve_of,
    execute,
    full_norms,
    is_done,
    path_of,
)
from experiments.runner import run
from experiments.sharpness import SharpnessSettings
from experiments.sharpness.measures import trained
from experiments.study import RunSpec
from experiments.training.writers import read
from tests.experiments.conftest import blank_or_drawn


def study_in(folder: Path, tiny: str, **settings: Any) -> NetworkStudy:
    given: dict[str, Any] = {"seeds": (0,), "methods": ("gsam",), "strategies": ("increasing",)} | settings
    return NetworkStudy.from_settings(
        output=folder, model=tiny, constant_plan="3x128", increasing_plan="2x64,1x128", **given
    )


def measured(tiny: str, tmp_path: Path, **settings: Any) -> tuple[NetworkStudy, RunSpec, Any]:
    study = study_in(tmp_path, tiny, **settings)
    [spec] = study.run_specs()
    dataset = run.load(spec.config)
    execute(spec, study, dataset)
    return study, spec, dataset


def test_full_norms_are_those_of_all_examples_in_one_batch(tiny: str) -> None:
    config = Config.from_settings(model=tiny, method="sgd", batch_plan="1x64")
    dataset = run.load(config)
    state, _ = run.train(config, dataset)
    found = full_norms(trained(config, dataset, state, SharpnessSettings(examples=512, batch_size=200)), 0.5)

    images = (dataset.train.images.astype(np.float32) - dataset.mean) / dataset.std
    stats, labels = state.model_state["norm"], dataset.train.labels

    def loss_fn(params: Any) -> jax.Array:
        normal = (images.reshape(512, -1) - stats["mean"]) / jnp.sqrt(stats["var"] + 1e-5)
        features = normal * params["norm"]["scale"] + params["norm"]["bias"]
        logits = features @ params["head"]["kernel"] + params["head"]["bias"]
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(512), labels])

    loss, gradient = jax.value_and_grad(loss_fn)(state.params)
    norm = optax.tree.norm(gradient)
    ahead = jax.tree.map(lambda w, g: w + 0.5 * g / norm, state.params, gradient)
    assert found.loss == pytest.approx(float(loss), rel=1e-5)
    assert found.grad_norm == pytest.approx(float(norm), rel=1e-4)
    assert found.sam_grad_norm == pytest.approx(float(optax.tree.norm(jax.grad(loss_fn)(ahead))), rel=1e-4)


def test_a_run_is_measured_during_training_at_the_positions_of_its_plan(tiny: str, tmp_path: Path) -> None:
    study, spec, dataset = measured(tiny, tmp_path)
    curve = curve_of([spec])
    assert curve.updates.tolist() == [8, 16, 20]
    assert curve.examples.tolist() == [512, 1024, 1536]
    assert curve.gradient.shape == curve.sam_gradient.shape == (1, 3)
    state, _ = run.train(spec.config, dataset)
    settings = SharpnessSettings(examples=512, batch_size=256, reestimate_batchnorm=True)
    last = full_norms(trained(spec.config, dataset, state, settings), 0.05)
    assert (curve.gradient[0, -1], curve.sam_gradient[0, -1]) == pytest.approx(last[1:], rel=1e-5)
    assert is_done(spec, study)


def test_norms_with_running_batchnorm_statistics_differ(tiny: str, tmp_path: Path) -> None:
    found = []
    for reestimate in (True, False):
        study = study_in(tmp_path / str(reestimate), tiny, reestimate_batchnorm=reestimate)
        [spec] = study.run_specs()
        study.output.mkdir()
        execute(spec, study, run.load(spec.config))
        found.append(curve_of([spec]))
    assert np.all(found[0].gradient != found[1].gradient)
    with pytest.raises(ValueError, match="holds another run"):
        is_done(spec, study_in(tmp_path / "False", tiny))


def test_norms_are_measured_every_few_epochs_and_after_the_last(tiny: str, tmp_path: Path) -> None:
    _, spec, _ = measured(tiny, tmp_path, every=2)
    assert [record["epoch"] for record in read(path_of(spec), "norms")] == [2, 3]


def test_damaged_files_and_files_of_another_study_are_refused(tiny: str, tmp_path: Path) -> None:
    _, spec, _ = measured(tiny, tmp_path)
    for settings in ({"measured_rho": 0.1}, {"learning_rate": 0.2}):
        other = study_in(tmp_path, tiny, **settings)
        with pytest.raises(ValueError, match=r"gsam-increasing-0.jsonl holds another run"):
            is_done(other.run_specs()[0], other)
    whole = path_of(spec).read_text(encoding="utf-8")
    for damaged in ("{", "", "".join(whole.splitlines(keepends=True)[:-1])):
        path_of(spec).write_text(damaged, encoding="utf-8")
        with pytest.raises(ValueError, match="or a damaged one"):
            is_done(spec, study_in(tmp_path, tiny))
    path_of(spec).write_text(whole, encoding="utf-8")
    assert is_done(spec, study_in(tmp_path, tiny))


def test_a_stopped_run_leaves_no_file_with_its_name(tiny: str, tmp_path: Path) -> None:
    study = study_in(tmp_path, tiny)
    [spec] = study.run_specs()
    dataset = run.load(spec.config)

    def stop(batches: Any) -> Any:
        yield next(iter(batches))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(spec, study, dataset, stop)
    assert not is_done(spec, study)
    execute(spec, study, dataset)
    assert is_done(spec, study)
    assert [path.name for path in tmp_path.iterdir()] == ["gsam-increasing-0.jsonl"]


def test_the_fitted_slope_of_a_power_law_is_its_exponent() -> None:
    x = np.arange(1, 101)
    values = np.stack([3 * x**-0.5, 5 * x**-0.7])
    values[:, :49] = 1.0
    found = late_rate(x, values)
    assert found.slope == pytest.approx(-0.6)
    assert found.standard_error == pytest.approx(0.1)
    assert str(found) == "−0.60 ± 0.10"
    assert str(late_rate(x, values[:1])) == "−0.50"


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_missing_slopes_are_shown_as_dashes(bad: float) -> None:
    values = np.asarray([[1.0, 1.0, bad]])
    assert np.isnan(fitted_slope(np.asarray([1, 2, 3]), values[0]))
    assert np.isnan(fitted_slope(np.asarray([2, 2]), np.ones(2)))
    x = np.asarray([1, 2, 3])
    [_, row] = rate_rows({("sam", "constant"): Curve(x, 16 * x, values, values)})
    assert row[:5] == ("SAM", "constant", "3", "–", "–")
    assert row[5:] == (("0", "0") if bad == 0 else ("–", "–"))


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["convergence", *arguments])
    convergence.main()


@blank_or_drawn
def test_the_program_reports_and_resumes(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], pictures: str
) -> None:
    plans = ("--constant-plan", "3x128", "--increasing-plan", "2x64,1x128", "--seeds", "0")
    small = {"dimensions": "3", "chains": "4", "examples": "512", "constant-plan": "3x128"}
    small |= {"increasing-plan": "2x64,1x128", "least-curvature": "0.5", "radius-updates": "16"}
    quadratic = [word for name, value in small.items() for word in (f"--quadratic.{name}", value)]
    arguments = ("--output", str(tmp_path), "--model", tiny, "--methods", "sam", *plans, *quadratic)
    strategies = ("--strategies", "constant", "increasing")
    call(monkeypatch, *arguments, *strategies)
    output = capsys.readouterr().out
    assert "2 runs of tiny on digits, 2 of them to do" in output
    text = (tmp_path / "convergence.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("# ")] == [
        "# A falling radius",
        "# A stochastic quadratic",
        "# Networks: tiny on digits",
    ]
    shown = {line.split("(")[-1].rstrip(")") for line in text.splitlines() if line.startswith("![")}
    assert shown == {path.name for path in tmp_path.glob("*.png")}
    assert len(shown) == 6
    assert "| SAM | increasing | 20 |" in text
    assert "| growing batch | SAM | falling |" in text

    call(monkeypatch, *arguments, *strategies, "--parts", "networks")
    assert "2 runs of tiny on digits, 0 of them to do" in capsys.readouterr().out
    assert "quadratic" not in (tmp_path / "convergence.md").read_text()

    with pytest.raises(SystemExit, match="2"):
        call(monkeypatch, *arguments, *strategies, "--measured-rho", "0.2")
    assert "holds another run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--parts", "cubic"), "parts is 'cubic'"),
        (("--every", "0"), "every is 0"),
        (("--methods", "asam"), "methods is ('asam',): the quadratic supports only sgd, sam, gsam, gsam_clean"),
        (("--measured-rho", "-1"), "measured_rho is -1.0"),
        (("--quadratic.chains", "0"), "chains is 0"),
    ],
)
def test_impossible_settings_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    word: str,
) -> None:
    with pytest.raises(SystemExit, match="2"):
        call(monkeypatch, "--output", str(tmp_path), *arguments)
    assert word in " ".join(capsys.readouterr().err.split())
