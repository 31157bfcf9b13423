"""What the methods that wrap their base optimizer promise."""

import re
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import sam_optax
from sam_optax import trees
from tests import helpers, methods

every_base = pytest.mark.parametrize("base", helpers.BASES)


def one_call(name: str, steps: int = 1, **call: Any) -> tuple[Any, Any]:
    tx, params = helpers.optimizer(name), helpers.small_params()
    state = tx.init(params)
    for batch in helpers.small_batches(steps):
        _, grads, grad_fn = sam_optax.value_and_grad(helpers.small_loss)(params, *batch)
        updates, state = tx.update(grads, state, params, **({"grad_fn": grad_fn} | call))
    return updates, state


@every_base
@helpers.every_wrapper
def test_radius_zero_is_the_base(name, base, x64):
    params, batches = helpers.small_params(), helpers.small_batches(5)
    ours = helpers.descend(helpers.optimizer(name, helpers.BASES[base](), rho=0.0), params, batches)
    theirs = helpers.descend(helpers.BASES[base](), params, batches)
    chex.assert_trees_all_close(ours, theirs, rtol=0, atol=1e-12)


@helpers.every_wrapper
def test_a_radius_changes_the_path(name):
    params, batches = helpers.small_params(), helpers.small_batches(3)
    ours = helpers.descend(helpers.optimizer(name, rho=0.5), params, batches)[-1]
    base = helpers.descend(helpers.BASES["momentum"](), params, batches)[-1]
    assert float(trees.norm(jax.tree.map(jnp.subtract, ours, base))) > 1e-3


@every_base
@helpers.every_wrapper
def test_a_zero_gradient_gives_the_update_of_the_base_on_a_zero_gradient(name, base):
    params = helpers.small_params()
    zero = jax.tree.map(jnp.zeros_like, params)
    tx, plain = helpers.optimizer(name, helpers.BASES[base]()), helpers.BASES[base]()
    updates, _ = tx.update(zero, tx.init(params), params, grad_fn=lambda params: zero)
    expected, _ = plain.update(zero, plain.init(params), params)
    chex.assert_trees_all_equal(updates, expected)


@helpers.every_wrapper
def test_a_zero_gradient_after_others_gives_a_finite_update(name):
    tx, params, (batch,) = helpers.optimizer(name), helpers.small_params(), helpers.small_batches(1)
    params, state = helpers.make_step(tx)(params, tx.init(params), *batch)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zero, state, params, grad_fn=lambda params: zero)
    chex.assert_tree_all_finite(updates)


@pytest.mark.parametrize(("name", "passes"), [("msam", 1), ("wsam_decoupled", 2)])
def test_a_step_is_traced_once_and_makes_its_passes(name, passes):
    traces = []

    def counted_loss(params: Any, *batch: Any) -> jax.Array:
        traces.append(batch[0].shape)
        return helpers.small_loss(params, *batch)

    tx, params = helpers.optimizer(name), helpers.small_params()
    step, state = helpers.make_step(tx, counted_loss), tx.init(params)
    for batch in helpers.small_batches(4):
        params, state = step(params, state, *batch)
    assert len(traces) == passes


@helpers.every_wrapper
def test_extra_arguments_reach_the_base(name):
    seen: dict[str, Any] = {}

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        seen.update(extra_args)
        return updates, state

    probe = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    params, (batch,) = helpers.small_params(), helpers.small_batches(1)
    tx = helpers.optimizer(name, base=optax.chain(probe, optax.sgd(0.1, momentum=0.9)))
    value, grads, grad_fn = sam_optax.value_and_grad(helpers.small_loss)(params, *batch)
    tx.update(grads, tx.init(params), params, grad_fn=grad_fn, value=value, temperature=0.5)
    assert (seen["value"], seen["temperature"]) == (value, 0.5)


@helpers.every_wrapper
def test_map_params_finds_what_has_the_shape_of_the_parameters(name):
    tx, state = helpers.optimizer(name), one_call(name)[1]
    found = optax.tree.map_params(tx, lambda x: True, state, transform_non_params=lambda x: False)
    assert found == jax.tree.map(lambda x: x.ndim > 0, state)


@helpers.every_wrapper
def test_a_checkpoint_goes_on_as_if_nothing_had_happened(name, tmp_path):
    tx, (*before, batch) = helpers.optimizer(name), helpers.small_batches(3)
    step, run = helpers.make_step(tx), (helpers.small_params(), tx.init(helpers.small_params()))
    fresh = run
    for earlier in before:
        run = step(*run, *earlier)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "run", run)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "run", fresh)
    chex.assert_trees_all_equal(step(*restored, *batch), step(*run, *batch))


@helpers.every_wrapper
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_parameters_and_states_keep_their_types(name, dtype):
    tx, params = helpers.optimizer(name), helpers.small_params(dtype)
    step, state = helpers.make_step(tx), tx.init(params)
    before = helpers.shapes((params, state))
    for batch in helpers.small_batches(2):
        params, state = step(params, state, *batch)
    assert helpers.shapes((params, state)) == before


@helpers.every_wrapper
def test_64_bits_stay_64_bits(name, x64):
    updates, _ = one_call(name)
    assert {x.dtype for x in jax.tree.leaves(updates)} == {jnp.dtype("float64")}


@helpers.every_wrapper
def test_a_state_can_be_donated(name):
    use_up = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    for state in (helpers.optimizer(name).init(helpers.small_params()), one_call(name)[1]):
        use_up(state)
        assert all(x.is_deleted() for x in jax.tree.leaves(state))


@pytest.mark.parametrize("name", ["msam", "wsam_decoupled"])
def test_an_update_needs_the_parameters(name):
    tx, params = helpers.optimizer(name), helpers.small_params()
    with pytest.raises(ValueError, match=r"^params is missing: call update"):
        tx.update(params, tx.init(params), grad_fn=lambda params: params)


@pytest.mark.parametrize("name", ["msam", "wsam_decoupled"])
def test_complex_leaves_are_refused(name):
    with pytest.raises(ValueError, match="params has a leaf of dtype complex64"):
        helpers.optimizer(name).init({"w": jnp.ones(2, complex)})


def test_a_skipped_step_of_decoupled_wsam_is_a_step_of_the_base():
    updates, state = one_call("wsam_decoupled", perturb=False, grad_fn=None)
    plain, params, (batch,) = helpers.BASES["momentum"](), helpers.small_params(), helpers.small_batches(1)
    expected, _ = plain.update(jax.grad(helpers.small_loss)(params, *batch), plain.init(params), params)
    chex.assert_trees_all_equal(updates, expected)
    assert np.isnan(sam_optax.diagnostics(state).cosine)


def test_decoupled_wsam_tells_its_diagnostics():
    seen = sam_optax.diagnostics(one_call("wsam_decoupled")[1])
    np.testing.assert_allclose(seen.perturbation_norm, 0.05, rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_decoupled_wsam_around_sgd_is_the_base_at_gamma_zero_and_sam_at_one_half(gamma, x64):
    params, batches = helpers.small_params(), helpers.small_batches(4)
    ours = helpers.descend(sam_optax.wsam_decoupled(optax.sgd(0.1), 0.1, 0.3, gamma), params, batches)
    same = optax.sgd(0.1) if gamma == 0.0 else optax.chain(sam_optax.sam(0.3), optax.sgd(0.1))
    chex.assert_trees_all_close(ours, helpers.descend(same, params, batches), rtol=0, atol=1e-14)


def test_every_public_method_stands_in_a_table():
    """A method that is added has to make the promises."""
    folder = Path(sam_optax.methods.__file__).parent
    written = {
        name
        for path in folder.glob("*.py")
        for name in re.findall(r"^def ([a-z]\w+)\(", path.read_text(), re.MULTILINE)
    }
    assert written - {"momentum", "msam_eval_params"} <= set(methods.SHORT) | set(helpers.WRAPPERS)
