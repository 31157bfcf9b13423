import inspect
import math
import re
from pathlib import Path
from typing import Any

import pytest

import sam_optax
from experiments.config import Config
from experiments.study import Comparison, Grid
from experiments.training.methods import METHODS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dataset", "cifar0"),
        ("model", "resnet"),
        ("method", "adam"),
        ("optimizer", "lion"),
        ("lr_schedule", "triangle"),
        ("rho", -0.1),
        ("rho", float("nan")),
        ("alpha", float("inf")),
        ("learning_rate", -1.0),
        ("momentum", -0.9),
        ("weight_decay", -1e-4),
        ("seed", -1),
        ("split", -1),
        ("seed", 2**32),
        ("learning_rate", 1e39),
        ("batch_plan", "40*16"),
        ("batch_plan", "0x16"),
        ("batch_plan", "tokens:5x16"),
        ("momentum", 1.0),
    ],
)
def test_an_impossible_value_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name.replace("_", "[ _]")):
        Config.from_settings(**{name: value})


def test_a_split_of_data_with_fixed_test_images_is_refused() -> None:
    assert Config.from_settings(dataset="digits", split=3).problem.split == 3
    with pytest.raises(ValueError, match=r"^split is 3, and the test images of cifar10 are fixed: omit it\."):
        Config.from_settings(dataset="cifar10", split=3)


def test_adamw_refuses_a_momentum() -> None:
    with pytest.raises(ValueError, match="momentum"):
        Config.from_settings(optimizer="adamw", momentum=0.9)


@pytest.mark.parametrize(("method", "rho"), [("sam", 0.05), ("gsam", 0.05), ("asam", 0.5)])
def test_the_default_radius_is_that_of_the_method(method: str, rho: float) -> None:
    assert Config.from_settings(method=method).descent.rho == rho
    assert Config.from_settings(method=method, rho=0.3).descent.rho == 0.3


def test_a_saved_config_loads_unchanged(tmp_path: Path) -> None:
    config = Config.from_settings(method="asam", batch_plan="2x16,3x32", seed=7)
    config.save(tmp_path / "config.json")
    assert Config.load(tmp_path / "config.json") == config
    assert None not in (config.descent.rho, config.descent.alpha, config.when, config.descent.momentum)


def test_ascent_steps_are_for_k_step_sam_and_two_by_default() -> None:
    assert Config.from_settings(method="k_step_sam").second_pass_gradients == 2
    assert Config.from_settings(method="k_step_sam", ascent_steps=4).second_pass_gradients == 4
    assert [Config.from_settings(method=name).second_pass_gradients for name in ("sgd", "sam", "msam")] == [0, 1, 0]
    with pytest.raises(ValueError, match="ascent_steps is 2, and sam has no such option"):
        Config.from_settings(method="sam", ascent_steps=2)
    with pytest.raises(ValueError, match="ascent_steps is 0"):
        Config.from_settings(method="k_step_sam", ascent_steps=0)
    with pytest.raises(ValueError, match="micro_batch is 16, and ascent_steps 2"):
        Config.from_settings(method="k_step_sam", batch_plan="1x64", micro_batch=16)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "sam", "gamma": 0.5}, "gamma is 0.5, and sam has no such option: omit it."),
        ({"method": "sgd", "rho_min": 0.0}, "rho_min is 0.0, and sgd has no such option: omit it."),
        ({"method": "sgd", "rho": 0.1}, "rho is 0.1, and sgd does not use it: omit it."),
        ({"method": "sam", "alpha": 0.5}, "alpha is 0.5, and sam does not use it: omit it."),
        ({"method": "sam", "rho_min": 0.1}, "rho_min is 0.1, and rho is 0.05: give rho_min a value of at most rho."),
        ({"method": "sam", "rho_min": -0.1}, "rho_min is -0.1: give a finite number of at least 0."),
        ({"method": "sam", "alpha_min": 0.0}, "alpha_min is 0.0, and sam has no such option: omit it."),
        (
            {"method": "gsam", "alpha_min": 0.1},
            "alpha_min is 0.1, and alpha is 0.02: give alpha_min a value of at most alpha.",
        ),
        ({"method": "sam", "rho_min": 0.01}, "rho_min is 0.01, and the learning rate is constant: omit it, or give"),
        (
            {"method": "bsam", "drop_path": 0.1, "model": "vit_tiny"},
            "drop_path is 0.1, and bsam divides a batch into parts, in which no random numbers can be drawn: omit it.",
        ),
        ({"method": "gsam", "alpha_min": -0.1}, "alpha_min is -0.1: give a finite number of at least 0."),
        ({"method": "wsam", "gamma": 1.0}, "gamma is 1.0: give a number of at least 0 and below 1."),
        ({"method": "wsam_decoupled", "gamma": -1.0}, "gamma is -1.0: give a number of at least 0 and below 1."),
        ({"method": "asam", "eta": -1.0}, "eta is -1.0: give a finite number of at least 0."),
        ({"method": "vasso", "theta": 2.0}, "theta is 2.0: give a number from 0 to 1."),
        ({"method": "friendly_sam", "sigma": math.inf}, "sigma is inf: give a finite number of at least 0."),
        ({"method": "unified_sam", "lam": 1.5}, "lam is 1.5: give a number from 0 to 1."),
    ],
)
def test_unknown_and_impossible_hyperparameters_of_a_method_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Config.from_settings(**settings)


def test_a_radius_at_a_constant_rate_in_an_earlier_record_is_constant() -> None:
    config = Config.from_settings(method="sam")
    assert Config.of(config.settings | {"rho_min": 0.01}) == config
    falling = Config.from_settings(method="sam", lr_schedule="cosine", rho_min=0.01)
    assert Config.of(falling.settings) == falling


def test_a_study_gives_each_method_only_its_own_hyperparameters(tmp_path: Path) -> None:
    numbers = {"rho": 0.2, "alpha": 0.3, "gamma": 0.5, "rho_min": 0.01, "alpha_min": 0.02}
    study = Grid.from_settings(output=tmp_path, methods=("sgd", "sam", "gsam", "wsam"), **numbers)
    specs = study.run_specs()
    assert {spec.config.descent.rho_min for spec in specs if spec.config.lr_schedule == "constant"} == {None}
    found = {spec.config.method: spec.config.descent for spec in specs}
    assert [(each.rho, each.alpha, each.gamma, each.rho_min, each.alpha_min) for each in found.values()] == [
        (0.0, 0.02, None, None, None),
        (0.2, 0.02, None, 0.01, None),
        (0.2, 0.3, None, 0.01, 0.02),
        (0.2, 0.02, 0.5, 0.01, None),
    ]
    for kind in (Grid, Comparison):
        with pytest.raises(ValueError, match=r"theta is 0\.5, and sgd or sam has no such option: omit it"):
            kind.from_settings(output=tmp_path, methods=("sgd", "sam"), theta=0.5)


def test_hyperparameter_defaults_are_those_of_the_library() -> None:
    for name, method in METHODS.items():
        own = Config.from_settings(method=name).constants
        assert own == method.constants
        make = getattr(sam_optax, name, None)
        if make is not None:
            usual = {key: each.default for key, each in inspect.signature(make).parameters.items()}
            usual["ascent_steps"] = usual.get("steps")  # the program has other kinds of steps, too
            assert all(usual[key] == value for key, value in own._asdict().items() if value is not None)
