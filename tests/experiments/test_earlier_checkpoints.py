"""States written by earlier versions, whose diagnostics had fewer fields, can be read."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sam_optax
from experiments.config import Config
from experiments.runner import run
from experiments.runner.program import build
from experiments.training import checkpoint
from experiments.training.checkpoint import Checkpoints
from sam_optax.method_states import StepDiagnostics
from tests.experiments.interrupted_runs import assert_same_run, assert_same_state, execute, stopped

SETTINGS: dict[str, Any] = {"model": "tiny", "batch_plan": "2x128"}  # 8 updates
METHODS: dict[str, dict[str, Any]] = {
    "sam": {"method": "sam"},
    "skipping": {"method": "gsam", "when": "every:2"},
    "in_shards": {"method": "sam", "m": 32},
    "around_the_base": {"method": "wsam_decoupled"},
    "averaged": {"method": "sam", "ema": 0.9},
}


class FourNumbers(NamedTuple):
    """The diagnostics of the first layout, NaN where nothing was measured."""

    grad_norm: Any
    perturbed_grad_norm: Any
    cosine: Any
    perturbation_norm: Any


class FourNumbersAndAFlag(NamedTuple):
    """The diagnostics of the second layout."""

    grad_norm: Any
    perturbed_grad_norm: Any
    cosine: Any
    perturbation_norm: Any
    measured: Any


def is_diagnostics(node: Any) -> bool:
    return isinstance(node, StepDiagnostics)


def earlier(state: Any, layout: Any = FourNumbers) -> Any:
    """The state in the layout of an earlier version."""

    def write(node: Any) -> Any:
        if not is_diagnostics(node):
            return node
        if layout is FourNumbersAndAFlag:
            return FourNumbersAndAFlag(*node[:4], node.measured)
        return FourNumbers(*(x if node.measured else jnp.full_like(x, jnp.nan) for x in node[:4]))

    return jax.tree.map(write, state, is_leaf=is_diagnostics)


def measured_step(*numbers: float) -> StepDiagnostics:
    """The diagnostics of a step of a version with four numbers."""
    state = sam_optax.sam().init(jnp.ones(3))
    fields = dict(zip(StepDiagnostics._fields, map(jnp.float32, numbers), strict=False))
    return state.diagnostics._replace(**fields, measured=jnp.array(True))


def write_in_the_earlier_layout(folder: Path, step: int, config: Config, layout: Any) -> None:
    """Rewrites the save of a stopped run in the earlier layout."""
    state, _ = build(config, run.load(config))
    notes, found = checkpoint.notes_of(folder, step), checkpoint.restore_save(folder, step, state)
    assert sum(map(is_diagnostics, jax.tree.leaves(found, is_leaf=is_diagnostics))) == 1
    shutil.rmtree(folder)
    saves = Checkpoints(folder, keep=1)
    saves.save(step, earlier(found, layout), notes)
    saves.close()


@pytest.mark.parametrize(
    "name", [name if name == "skipping" else pytest.param(name, marks=pytest.mark.long) for name in METHODS]
)
@pytest.mark.parametrize("layout", [FourNumbers, FourNumbersAndAFlag])
def test_a_stopped_run_of_an_earlier_version_resumes(tiny: str, tmp_path: Path, name: str, layout: Any) -> None:
    config = Config.from_settings(**SETTINGS | METHODS[name])
    stopped(tmp_path / "run", config, 6)  # the sixth update, number 5, is one that `every:2` skips
    write_in_the_earlier_layout(tmp_path / "run" / "checkpoints", 6, config, layout)
    execute(tmp_path / "run", config)
    execute(tmp_path / "whole", config)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("is_measured", [True, False])
@pytest.mark.parametrize("layout", [FourNumbers, FourNumbersAndAFlag])
@pytest.mark.parametrize("name", METHODS)
def test_fields_missing_from_an_earlier_state_are_read_as_not_measured(
    tiny: str, tmp_path: Path, name: str, layout: Any, is_measured: bool
) -> None:
    config = Config.from_settings(**SETTINGS | METHODS[name])
    state, _ = build(config, run.load(config))
    measured = measured_step(1.0, 2.0, 0.5, 0.25)
    if is_measured:
        state = jax.tree.map(lambda node: measured if is_diagnostics(node) else node, state, is_leaf=is_diagnostics)
    checkpoint.save(tmp_path / "state", earlier(state, layout))
    assert_same_state(checkpoint.restore(tmp_path / "state", state), state)


def test_restored_arrays_have_the_requested_sharding(tmp_path: Path) -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    everywhere = jax.NamedSharding(mesh, jax.sharding.PartitionSpec())
    state = jax.device_put(sam_optax.sam().init(jnp.ones(3)), everywhere)
    checkpoint.save(tmp_path / "state", earlier(state))
    found = checkpoint.restore(tmp_path / "state", state)
    assert_same_state(found, state)
    assert {x.sharding for x in jax.tree.leaves(found)} == {everywhere}
    assert all(x.committed for x in jax.tree.leaves(found))


def test_a_measured_nan_stays_nan(tmp_path: Path) -> None:
    state = sam_optax.sam().init(jnp.ones(3))
    numbers = (1.0, jnp.nan, jnp.nan, 0.5)
    checkpoint.save(tmp_path / "state", state._replace(diagnostics=FourNumbers(*map(jnp.float32, numbers))))
    found = checkpoint.restore(tmp_path / "state", state).diagnostics
    np.testing.assert_array_equal(found[:4], numbers)
    assert found.measured
    assert not found.loss_measured


def test_a_state_of_other_parameters_is_still_refused(tmp_path: Path) -> None:
    sam = sam_optax.sam()
    checkpoint.save(tmp_path / "state", {"params": jnp.ones(3), "state": earlier(sam.init(jnp.ones(3)))})
    with pytest.raises(ValueError, match="do not match"):
        checkpoint.restore(tmp_path / "state", {"other": jnp.ones(3), "state": sam.init(jnp.ones(3))})
