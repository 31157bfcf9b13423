"""One compiled step for all batch sizes of a plan."""

from typing import Any

import chex
import jax
import pytest

from experiments.config import Config
from experiments.runner import run
from experiments.runner.program import build, check_compile_once
from experiments.study import Comparison, Grid
from experiments.training.sharding import Sharding, mesh_of
from experiments.training.writers import Record

FIVE_STAGES = "updates:3x16,3x32,3x64,3x128,2x256"


def trained(**settings: Any) -> tuple[Any, list[Record]]:
    config = Config.from_settings(batch_plan=FIVE_STAGES, **settings)
    records: list[Record] = []
    state, _ = run.train(config, run.load(config), write=records.append)
    return state, records


@pytest.mark.parametrize("method", ["sgd", "sam", "gsam", "msam", "wsam_decoupled"])
@pytest.mark.parametrize("other", [{}, {"micro_batch": 16}])
def test_compile_once_gives_the_same_run_up_to_rounding(plain: str, method: str, other: dict[str, Any]) -> None:
    state, records = trained(model=plain, method=method, micro_batch=16, compile_once=True)
    wanted, expected = trained(model=plain, method=method, **other)
    chex.assert_trees_all_close(state.params, wanted.params, rtol=1e-3, atol=1e-5)
    for record, reference in zip(records, expected, strict=True):
        assert record["batch_size"] == reference["batch_size"]
        name = "loss" if record["kind"] == "step" else "test_loss"
        assert record[name] == pytest.approx(reference[name], rel=1e-4)


@pytest.mark.parametrize(("settings", "steps"), [({}, 1), ({"when": "every:2"}, 2)])
def test_a_plan_of_five_stages_compiles_one_step(plain: str, settings: dict[str, Any], steps: int) -> None:
    config = Config.from_settings(
        model=plain, method="gsam", batch_plan=FIVE_STAGES, micro_batch=16, compile_once=True, **settings
    )
    dataset = run.load(config)
    step: Any = build(config, dataset)[1].step
    run.train(config, dataset)
    assert step.func._cache_size() == steps  # steps with and without a second pass are two programs


@pytest.mark.long
def test_a_vision_transformer_is_trained() -> None:
    settings: dict[str, Any] = {"model": "vit_tiny", "method": "sam", "batch_plan": "updates:1x8,1x16", "seed": 1}
    found = [
        run.train(config := Config.from_settings(**settings, **more), run.load(config))[1]
        for more in ({}, {"micro_batch": 8, "compile_once": True})
    ]
    assert found[0].train_loss == pytest.approx(found[1].train_loss, rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "compile_once is True, and micro_batch is None: give"),
        ({"micro_batch": 32}, "micro_batch 32 is larger than the batch size 16: make it smaller"),
        ({"micro_batch": 16, "mixing": 0.5}, "mixing 0.5 mixes the images of a whole batch"),
        ({"micro_batch": 16, "method": "functional_sam"}, "functional_sam cannot be computed in such a loop"),
        ({"micro_batch": 8, "batch_plan": "adaptive:2x16..32:noise_scale"}, "the batch plan is adaptive"),
    ],
)
def test_settings_that_contradict_compile_once_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config.from_settings(**{"model": "vit_tiny", "compile_once": True, "batch_plan": "1x16,1x64"} | settings)


def test_networks_with_batchnorm_and_several_devices_are_refused(tiny: str, plain: str) -> None:
    settings: dict[str, Any] = {"batch_plan": "1x16,1x64", "micro_batch": 16, "compile_once": True}
    config = Config.from_settings(model=tiny, **settings)
    with pytest.raises(ValueError, match="tiny has BatchNorm"):
        build(config, run.load(config))
    config = Config.from_settings(model=plain, **settings)
    check_compile_once(config, run.load(config))
    with pytest.raises(ValueError, match="the run has 2 devices"):
        check_compile_once(config, run.load(config), Sharding(mesh_of(jax.devices()[:2])))


@pytest.mark.parametrize("study", [Grid, Comparison])
def test_studies_refuse_compile_once(study: Any, tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="compile_once is True, and studies do not support it"):
        study.from_settings(output=tmp_path, micro_batch=16, compile_once=True)
