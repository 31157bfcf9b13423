"""The comparison with PyTorch on an accelerator, with a replacement for PyTorch, which is an optional dependency."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import chex
import jax
import numpy as np
import pytest
from flax import nnx

import sam_optax
from experiments.benchmark import accelerator, benchmark_steps, peers

SHAPE = (4, 4, 3)


class Linear(nnx.Module):
    """A linear layer on the pixels."""

    def __init__(self) -> None:
        self.layer = nnx.Linear(48, 10, rngs=nnx.Rngs(0))

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images to logits."""
        return self.layer(images.reshape(len(images), -1))


def problem(*_: Any) -> benchmark_steps.Problem:
    return benchmark_steps.create(Linear(), 10, SHAPE, 2)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["accelerator", *arguments])
    accelerator.main()


class OtherSteps:
    """Steps of another framework with the given losses."""

    def __init__(self, losses: list[float]) -> None:
        self.first_losses = losses

    def turn(self, name: str, steps: int) -> Any:
        assert name in {"loss and gradient", "SAM", "GSAM"}
        assert steps == 2
        return lambda: None


@pytest.fixture
def other_framework(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replaces PyTorch; the returned list holds the losses of its first steps, which are ours unless changed."""
    losses = accelerator.our_subjects(problem(), 1).losses
    networks = SimpleNamespace(weights=dict, steps=lambda *_, is_compiled: OtherSteps(losses))
    framework = SimpleNamespace(create=lambda *_: networks)
    monkeypatch.setitem(sys.modules, "experiments.benchmark.torch_accelerator", framework)
    monkeypatch.setattr("experiments.benchmark.torch_accelerator", framework, raising=False)
    monkeypatch.setattr(accelerator, "problem_of", problem)
    monkeypatch.setattr(peers, "is_installed", lambda: True)
    return losses


ONE_SETTING = ("--models", "vit_tiny", "--batch-sizes", "2", "--image-side", "4", "--rounds", "1", "--steps", "2")


def test_one_call_runs_several_steps() -> None:
    one, three = (benchmark_steps.ours(problem(), sam_optax.sam(0.05), 0.9, repeat=repeat) for repeat in (1, 3))
    losses = [float(one.dispatch()) for _ in range(3)]
    assert float(three()) == pytest.approx(losses[-1])
    chex.assert_trees_all_close(three.params, one.params, rtol=1e-6)


def test_each_step_is_compared_with_both_modes_of_pytorch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, other_framework: list[float]
) -> None:
    call(monkeypatch, *ONE_SETTING, "--precisions", "tf32", "--output", str(tmp_path))
    [measured] = json.loads((tmp_path / "accelerator.json").read_text())["measured"]
    pairs = {(figure["subject"], figure["reference"]) for figure in measured["figures"]}
    for name in ("loss and gradient", "SAM", "GSAM"):
        assert {(name, f"PyTorch's {name}, {mode}") for mode in ("eager", "compiled")} <= pairs
    assert ("SAM, all steps of a turn in one call", "SAM") in pairs
    assert measured["flops"]["SAM"] > 1.5 * measured["flops"]["loss and gradient"] > 0
    printed = capsys.readouterr().out
    assert "vit_tiny, batch 2, tf32: 1 rounds of 2 steps" in printed
    assert "GFLOP of a step" in printed


def test_steps_with_other_losses_are_not_compared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, other_framework: list[float]
) -> None:
    other_framework[1] += 1
    with pytest.raises(ValueError, match="vit_tiny, batch 2, tf32, SAM: losses are"):
        call(monkeypatch, *ONE_SETTING, "--precisions", "tf32", "--output", str(tmp_path))


def test_rates_are_operations_per_second_of_the_median_time() -> None:
    figure = benchmark_figure(amounts=(1e-3, 2e-3, 9e-3))
    [_, row] = accelerator.limits([figure], {"SAM": 4e9}, peak_tflops=10.0)
    assert row == ("SAM", "4", "2", "2", "20%")


def benchmark_figure(amounts: tuple[float, ...]) -> accelerator.Figure:
    return accelerator.Figure("net", 2, "time", "SAM", "loss and gradient", None, "s", amounts, amounts)


def test_missing_pytorch_is_reported_with_the_install_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(peers, "is_installed", lambda: False)
    call(monkeypatch, "--output", str(tmp_path))
    assert "make benchmark-peers installs torch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"image_side": 30}, "image_side is 30: give a multiple of 4"),
        ({"models": ("resnet18", "resnet18")}, "models"),
        ({"precisions": ("float16",)}, "precisions is 'float16'"),
        ({"batch_sizes": (0,)}, "batch_sizes is 0: give a positive integer"),
        ({"steps": 0}, "steps is 0: give a positive integer"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        accelerator.Arguments(**arguments)


def test_networks_compute_in_the_configured_precision() -> None:
    weights: dict[str, np.ndarray] = {}
    for precision, dtype in accelerator.DTYPES.items():
        setting = accelerator.Setting("vit_tiny", 2, precision, (8, 8, 3))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(accelerator.models, "load_torch", lambda *_: None)
            made = accelerator.problem_of(setting, weights)
        program = str(jax.make_jaxpr(made.loss_fn)(made.params, made.model_state, *made.batch))
        assert ("bf16" in program) == (dtype == jax.numpy.bfloat16)
        assert all(x.dtype == np.float32 for x in jax.tree.leaves(made.params))
