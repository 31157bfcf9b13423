from pathlib import Path

import pytest

from experiments.config import Config


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
        ("seed", 2**32),
        ("learning_rate", 1e39),
        ("batch_plan", "40*16"),
        ("batch_plan", "0x16"),
        ("momentum", 1.0),
    ],
)
def test_an_impossible_value_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name.replace("_", "[ _]")):
        Config.from_settings(**{name: value})


def test_adamw_refuses_a_momentum() -> None:
    with pytest.raises(ValueError, match="momentum"):
        Config.from_settings(optimizer="adamw", momentum=0.9)


@pytest.mark.parametrize(("method", "rho"), [("sam", 0.05), ("gsam", 0.05), ("asam", 0.5)])
def test_a_radius_left_out_is_the_methods_own(method: str, rho: float) -> None:
    assert Config.from_settings(method=method).descent.rho == rho
    assert Config.from_settings(method=method, rho=0.3).descent.rho == 0.3


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    config = Config.from_settings(method="asam", batch_plan="2x16,3x32", seed=7)
    config.save(tmp_path / "config.json")
    assert Config.load(tmp_path / "config.json") == config
    assert None not in (config.descent.rho, config.descent.alpha, config.when, config.descent.momentum)


def test_ascent_steps_belong_to_k_step_sam_and_have_two_by_default() -> None:
    assert Config.from_settings(method="k_step_sam").second_pass_gradients == 2
    assert Config.from_settings(method="k_step_sam", ascent_steps=4).second_pass_gradients == 4
    assert [Config.from_settings(method=name).second_pass_gradients for name in ("sgd", "sam", "msam")] == [0, 1, 0]
    with pytest.raises(ValueError, match="ascent_steps is 2, and sam has no such option"):
        Config.from_settings(method="sam", ascent_steps=2)
    with pytest.raises(ValueError, match="ascent_steps is 0"):
        Config.from_settings(method="k_step_sam", ascent_steps=0)
    with pytest.raises(ValueError, match="micro_batch is 16, and ascent_steps 2"):
        Config.from_settings(method="k_step_sam", batch_plan="1x64", micro_batch=16)
