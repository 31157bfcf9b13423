"""MSAM with frozen parameters, and with partitions that have their own optimizers."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from flax import nnx

import sam_optax
from tests.body_and_head import HEAD, LABELS, gradient, params

RHO, STEPS = 0.3, 3
SGD, ADAM = optax.sgd(0.1, momentum=0.9), optax.adam(0.05)


def trained(tx: optax.GradientTransformation, w: Any, gradient: Any = gradient) -> tuple[Any, Any]:
    """Parameters and state after some steps."""
    state = tx.init(w)
    for _ in range(STEPS):
        updates, state = tx.update(gradient(w), state, w)
        w = optax.apply_updates(w, updates)
    return w, state


def frozen(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.multi_transform({"trained": tx, "frozen": optax.set_to_zero()}, LABELS)


FROZEN = {
    "base_and_mask": lambda base: sam_optax.msam(frozen(base), RHO, mask=HEAD),
    "base_and_function": lambda base: sam_optax.msam(
        frozen(base), RHO, mask=sam_optax.by_path(lambda path: path == "head")
    ),
    "inside": lambda base: frozen(sam_optax.msam(base, RHO)),
    "inside_with_the_mask_of_all": lambda base: frozen(sam_optax.msam(base, RHO, mask=HEAD)),
    "selective_transform": lambda base: sam_optax.msam(
        optax.selective_transform(base, freeze_mask={"body": True, "head": False}), RHO, mask=HEAD
    ),
    "masked": lambda base: optax.chain(
        optax.masked(sam_optax.msam(base, RHO), HEAD), optax.masked(optax.set_to_zero(), {"body": True, "head": False})
    ),
    "masked_base": lambda base: sam_optax.msam(
        optax.chain(optax.masked(optax.set_to_zero(), {"body": True, "head": False}), optax.masked(base, HEAD)),
        RHO,
        mask=HEAD,
    ),
    "chained": lambda base: optax.chain(optax.clip(1e6), sam_optax.skip_nonfinite(frozen(sam_optax.msam(base, RHO)))),
}


@pytest.mark.parametrize("form", FROZEN)
@pytest.mark.parametrize("base", [SGD, ADAM], ids=["sgd", "adam"])
def test_a_trained_head_is_updated_as_if_it_were_the_only_parameter(base, form):
    w, state = trained(FROZEN[form](base), params())
    body = params()["body"]
    of_head = lambda w: {"head": gradient(w | {"body": body})["head"]}  # noqa: E731
    head, head_state = trained(sam_optax.msam(base, RHO), {"head": params()["head"]}, of_head)
    np.testing.assert_array_equal(w["body"], body)
    np.testing.assert_allclose(w["head"], head["head"], rtol=1e-5, atol=1e-7)
    evaluated = sam_optax.msam_eval_params(state, w)
    np.testing.assert_array_equal(evaluated["body"], body)
    expected = sam_optax.msam_eval_params(head_state, head)
    np.testing.assert_allclose(evaluated["head"], expected["head"], rtol=1e-5, atol=1e-7)


def test_the_direction_is_composed_of_the_momentum_of_each_group():
    """`w̃ − w = −ρ v/‖v‖`, where `v` is SGD's trace on one leaf and Adam's first moment on the other."""
    tx = sam_optax.msam(optax.multi_transform({"a": SGD, "b": ADAM}, {"body": "a", "head": "b"}), RHO)
    w, g = params(), gradient(params())
    updates, state = tx.update(g, tx.init(w), w)
    moved = optax.apply_updates(w, updates)
    v = {"body": g["body"], "head": 0.1 * g["head"]}
    norm = np.sqrt(sum(np.sum(x**2) for x in v.values()))
    offset = jax.tree.map(jnp.subtract, moved, sam_optax.msam_eval_params(state, moved))
    chex.assert_trees_all_close(offset, jax.tree.map(lambda x: -RHO * x / norm, v), rtol=1e-3, atol=1e-6)


def test_each_of_several_partitions_has_its_own_radius():
    radii = {"body": 0.5, "head": 0.1}
    tx = optax.multi_transform(
        {"body": sam_optax.msam(SGD, radii["body"]), "head": sam_optax.msam(ADAM, radii["head"])},
        {"body": "body", "head": "head"},
    )
    w, state = trained(tx, params())
    evaluated = sam_optax.msam_eval_params(state, w)
    for name, rho in radii.items():
        np.testing.assert_allclose(np.linalg.norm(w[name] - evaluated[name]), rho, rtol=1e-4)


def test_an_nnx_optimizer_trains_and_evaluates_the_trained_part():
    model = nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.Linear(4, 2, rngs=nnx.Rngs(1)))
    labels = sam_optax.by_path(lambda path: "1" in path)
    tx = optax.multi_transform({True: sam_optax.msam(SGD, RHO), False: optax.set_to_zero()}, labels)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    before = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    optimizer.update(model, nnx.grad(lambda model: jnp.mean(model(jnp.ones((5, 3))) ** 2))(model))
    state = nnx.state(model, nnx.Param)
    evaluated = nnx.to_pure_dict(sam_optax.msam_eval_params(optimizer.opt_state, state))
    after = nnx.to_pure_dict(state)
    chex.assert_trees_all_equal(after["layers"][0], before["layers"][0])
    chex.assert_trees_all_equal(evaluated["layers"][0], before["layers"][0])
    offset = jax.tree.map(jnp.subtract, after["layers"][1], evaluated["layers"][1])
    np.testing.assert_allclose(optax.tree.norm(offset), RHO, rtol=1e-4)


def test_a_leaf_of_the_mask_without_momentum_is_refused_by_its_path():
    for base in (frozen(SGD), optax.masked(SGD, HEAD)):
        message = r"^base keeps 0 momenta .* at 'body', .* Its state has TraceState\.trace of 'head'\. .* or mask="
        with pytest.raises(ValueError, match=message):
            sam_optax.msam(base).init(params())


def test_a_leaf_with_two_momenta_is_refused_unless_the_mask_excludes_it():
    base = optax.chain(SGD, optax.masked(ADAM, {"body": True, "head": False}))
    message = (
        r"^base keeps 2 momenta .* at 'body', .* TraceState\.trace of 'body', 'head'; ScaleByAdamState\.mu of 'body'"
    )
    with pytest.raises(ValueError, match=message):
        sam_optax.msam(base).init(params())
    sam_optax.msam(base, mask=HEAD).init(params())


def test_the_momenta_of_muon_are_refused_by_their_names_and_a_direction_takes_one():
    w = params() | {"bias": jnp.ones(2)}
    muon = optax.contrib.muon(0.01)
    message = r"at 'body', .*ScaleByAdamState\.mu of 'bias'; MuonState\.mu of 'body', 'head'\. .* direction="
    with pytest.raises(ValueError, match=message):
        sam_optax.msam(muon).init(w)
    kernels = {"body": True, "head": True, "bias": False}
    tx = sam_optax.msam(muon, RHO, lambda state: state.inner_states["muon"].inner_state[0].mu, mask=kernels)
    _, state = tx.update(w, tx.init(w), w)
    np.testing.assert_allclose(optax.tree.norm(state.offset), RHO, rtol=1e-5)
    np.testing.assert_array_equal(state.offset["bias"], np.zeros(2))


def test_parameters_that_no_partition_trains_are_refused():
    w, state = trained(frozen(sam_optax.msam(SGD)), params())
    for others in (
        {"head": w["head"], "neck": w["body"]},
        {"body": w["body"]},
        {"body": w["body"], "head": jnp.ones(2)},
    ):
        with pytest.raises(ValueError, match=r"^state belongs to other parameters than params"):
            sam_optax.msam_eval_params(state, others)


def test_a_mask_without_the_leaves_of_the_partition_is_refused():
    tx = optax.multi_transform({"a": sam_optax.msam(SGD, mask={"body": True}), "b": ADAM}, {"body": "b", "head": "a"})
    with pytest.raises(ValueError, match=r"^mask does not have the leaves of params: .* is missing is at 'head'"):
        tx.init(params())
