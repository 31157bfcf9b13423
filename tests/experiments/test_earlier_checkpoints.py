"""States that a version wrote whose diagnostics had no flag, and NaN where nothing was measured, are read."""

import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sam_optax
from experiments import run
from experiments.config import Config
from experiments.program import build
from experiments.training import checkpoint, checkpoints
from experiments.training.checkpoints import Checkpoints
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


def is_diagnostics(node: Any) -> bool:
    return isinstance(node, StepDiagnostics)


def earlier(state: Any) -> Any:
    """The state as it was written before: four numbers, all NaN where nothing was measured."""

    def four(node: Any) -> Any:
        if not is_diagnostics(node):
            return node
        return sam_optax.Diagnostics(*(x if node.measured else jnp.full_like(x, jnp.nan) for x in node[:4]))

    return jax.tree.map(four, state, is_leaf=is_diagnostics)


def write_in_the_earlier_layout(folder: Path, step: int, config: Config) -> None:
    """Replace the save of a stopped run."""
    state, _ = build(config, run.load(config))
    notes, found = checkpoints.notes_of(folder, step), checkpoints.restore(folder, step, state)
    assert sum(map(is_diagnostics, jax.tree.leaves(found, is_leaf=is_diagnostics))) == 1
    shutil.rmtree(folder)
    saves = Checkpoints(folder, keep=1)
    saves.save(step, earlier(found), notes)
    saves.close()


@pytest.mark.parametrize(
    "name", [name if name == "skipping" else pytest.param(name, marks=pytest.mark.long) for name in METHODS]
)
def test_a_run_that_was_stopped_goes_on(tiny: str, tmp_path: Path, name: str) -> None:
    config = Config(**SETTINGS | METHODS[name])
    stopped(tmp_path / "run", config, 6)  # the sixth update, number 5, is one that `every:2` skips
    write_in_the_earlier_layout(tmp_path / "run" / "checkpoints", 6, config)
    execute(tmp_path / "run", config)
    execute(tmp_path / "whole", config)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("is_measured", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_a_state_is_read_and_nan_means_not_measured(tiny: str, tmp_path: Path, name: str, is_measured: bool) -> None:
    config = Config(**SETTINGS | METHODS[name])
    state, _ = build(config, run.load(config))
    seen = StepDiagnostics(*map(jnp.float32, (1.0, 2.0, 0.5, 0.25)), measured=jnp.array(True))
    if is_measured:
        state = jax.tree.map(lambda node: seen if is_diagnostics(node) else node, state, is_leaf=is_diagnostics)
    checkpoint.save(tmp_path / "state", earlier(state))
    assert_same_state(checkpoint.restore(tmp_path / "state", state), state)


def test_what_is_read_lies_where_it_is_wanted(tmp_path: Path) -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    everywhere = jax.NamedSharding(mesh, jax.sharding.PartitionSpec())
    state = jax.device_put(sam_optax.sam().init(jnp.ones(3)), everywhere)
    checkpoint.save(tmp_path / "state", earlier(state))
    found = checkpoint.restore(tmp_path / "state", state)
    assert_same_state(found, state)
    assert {x.sharding for x in jax.tree.leaves(found)} == {everywhere}
    assert all(x.committed for x in jax.tree.leaves(found))


def test_a_nan_that_was_measured_stays_one(tmp_path: Path) -> None:
    state = sam_optax.sam().init(jnp.ones(3))
    saved = state._replace(diagnostics=sam_optax.Diagnostics(*map(jnp.float32, (1.0, jnp.nan, jnp.nan, 0.5))))
    checkpoint.save(tmp_path / "state", saved)
    found = checkpoint.restore(tmp_path / "state", state).diagnostics
    np.testing.assert_array_equal(found, [1.0, jnp.nan, jnp.nan, 0.5, True])


def test_a_state_of_other_parameters_is_refused_as_ever(tmp_path: Path) -> None:
    sam = sam_optax.sam()
    checkpoint.save(tmp_path / "state", {"params": jnp.ones(3), "state": earlier(sam.init(jnp.ones(3)))})
    with pytest.raises(ValueError, match="do not match"):
        checkpoint.restore(tmp_path / "state", {"other": jnp.ones(3), "state": sam.init(jnp.ones(3))})
