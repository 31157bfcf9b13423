"""Masks choose leaves by path in every framework; hidden leaves neither affect the perturbation nor are perturbed."""

import dataclasses
from typing import Any

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import sam_optax
from sam_optax import trees
from tests import helpers, methods
from tests.frameworks import BIASES, FRAMEWORKS, PATHS, NnxNet

every_framework = pytest.mark.parametrize("framework", FRAMEWORKS)
a_framework = pytest.mark.parametrize(
    "framework",
    [name if name in ("nnx", "haiku") else pytest.param(name, marks=pytest.mark.long) for name in FRAMEWORKS],
)

NOTHING = sam_optax.by_path(lambda path: False)
MASKS = {
    "function": lambda: methods.KERNELS,
    "tree": lambda: {"dense": {"kernel": True, "bias": False}},
    "numpy_bools": lambda: {"dense": {"kernel": np.bool_(True), "bias": np.bool_(False)}},
}


def chosen_paths(mask: Any, params: Any) -> set[str]:
    pairs = zip(trees.leaf_paths(params), jax.tree.leaves(mask), strict=True)
    return {path for path, chosen in pairs if chosen}


def offsets(tx: optax.GradientTransformationExtraArgs, params: Any, grads: Any) -> Any:
    """The offset of the second pass, exact in 64 bits."""
    recorded = []

    def grad_fn(moved: Any) -> Any:
        recorded.append(jax.tree.map(jnp.subtract, moved, params))
        return moved

    tx.update(grads, tx.init(params), params, grad_fn=grad_fn, perturb=True)
    return recorded[0]


@every_framework
def test_paths_are_the_names_that_the_framework_gives(framework):
    assert trees.leaf_paths(FRAMEWORKS[framework]()) == PATHS[framework]


@every_framework
def test_biases_are_the_leaves_named_bias_or_b(framework):
    params = FRAMEWORKS[framework]()
    mask = sam_optax.biases(params)
    assert chosen_paths(mask, params) == BIASES[framework]
    assert jax.tree.structure(mask) == jax.tree.structure(params)


@a_framework
def test_asam_scales_every_leaf_except_the_biases(framework, x64):
    """At weights of 2 and gradients of 1, `ε` of a scaled leaf is `(2 + η)²` times that of an exempt one."""
    params = jax.tree.map(lambda x: jnp.full(x.shape, 2.0), FRAMEWORKS[framework]())
    offset = offsets(sam_optax.asam(eta=0.1), params, jax.tree.map(jnp.ones_like, params))
    sizes = {path: float(jnp.ravel(x)[0]) for path, x in zip(PATHS[framework], jax.tree.leaves(offset), strict=True)}
    exempt = {path for path, size in sizes.items() if np.isclose(size, min(sizes.values()))}
    assert exempt == BIASES[framework]
    np.testing.assert_allclose(max(sizes.values()) / min(sizes.values()), 2.1**2, rtol=1e-10)


@every_framework
def test_by_path_calls_the_predicate_with_each_path(framework):
    params, asked = FRAMEWORKS[framework](), []
    mask = sam_optax.by_path(lambda path: asked.append(path) or path.startswith("norm"))(params)
    assert asked == PATHS[framework]
    assert chosen_paths(mask, params) == {path for path in PATHS[framework] if path.startswith("norm")}
    assert {type(x) for x in jax.tree.leaves(mask)} == {bool}


@pytest.mark.parametrize("kind", MASKS)
def test_hidden_leaves_are_not_perturbed_and_the_others_share_the_radius(kind, x64):
    params = helpers.small_params()
    offset = offsets(sam_optax.sam(0.5, mask=MASKS[kind]()), params, params)["dense"]
    np.testing.assert_array_equal(offset["bias"], np.zeros(2))
    kernel = np.asarray(params["dense"]["kernel"])
    np.testing.assert_allclose(offset["kernel"], 0.5 * kernel / np.linalg.norm(kernel), rtol=1e-10)


def test_gradients_of_hidden_leaves_do_not_affect_the_perturbation(x64):
    params = helpers.small_params()
    grads = {"dense": {"kernel": params["dense"]["kernel"], "bias": jnp.full(2, jnp.nan)}}
    offset = offsets(sam_optax.sam(0.5, mask=methods.KERNELS), params, grads)
    np.testing.assert_allclose(trees.norm(offset), 0.5, rtol=1e-10)


def test_an_offset_that_a_perturbation_gives_to_hidden_leaves_is_dropped():
    everywhere = optax.stateless(lambda updates, params: jax.tree.map(jnp.ones_like, updates))
    tx = sam_optax.sharpness_aware(everywhere, sam_optax.perturbed_gradient(), mask=methods.KERNELS)
    params = helpers.small_params()
    offset = offsets(tx, params, params)["dense"]
    np.testing.assert_array_equal(offset["bias"], np.zeros(2))
    np.testing.assert_allclose(offset["kernel"], np.ones((3, 2)), rtol=1e-6)


def test_the_combiner_sees_all_leaves(x64):
    """Masked GSAM adds the component that is orthogonal over all leaves, and also updates the hidden ones."""
    params, (batch,) = helpers.small_params(), helpers.small_batches(1)
    _, grads, grad_fn = sam_optax.value_and_grad(helpers.small_loss)(params, *batch)
    gradients = []

    def second_pass(moved: Any) -> Any:
        gradients.append(grad_fn(moved))
        return gradients[-1]

    tx = sam_optax.gsam(0.5, 0.5, mask=methods.KERNELS)
    updates, state = tx.update(grads, tx.init(params), params, grad_fn=second_pass)
    added = jax.tree.map(jnp.subtract, updates, gradients[0])
    np.testing.assert_allclose(trees.inner(added, gradients[0]), 0.0, atol=1e-12)
    assert float(trees.norm(added["dense"]["bias"])) > 1e-4
    np.testing.assert_allclose(sam_optax.diagnostics(state).grad_norm, trees.norm(grads), rtol=1e-12)


def test_a_mask_of_all_leaves_changes_nothing():
    params, batches = helpers.small_params(), helpers.small_batches(3)
    everything = sam_optax.by_path(lambda path: True)
    masked, plain = (
        helpers.descend(optax.chain(sam_optax.gsam(0.5, 0.2, mask=mask), optax.sgd(0.1)), params, batches)
        for mask in (everything, None)
    )
    chex.assert_trees_all_equal(masked, plain)


@pytest.mark.parametrize(
    "method", [sam_optax.sam(0.5, mask=NOTHING), sam_optax.msam(optax.sgd(0.1, 0.9), mask=NOTHING)]
)
def test_a_mask_that_chooses_no_leaf_is_refused(method):
    with pytest.raises(
        ValueError, match="mask chooses none of the 2 leaves of params, the first of which is 'dense/bias'"
    ):
        method.init(helpers.small_params())


def test_in_a_group_a_mask_may_choose_no_leaf():
    kernels = sam_optax.by_path(lambda path: path.endswith("kernel"))
    biases = optax.masked(sam_optax.msam(optax.sgd(0.1, 0.9), mask=kernels), {"dense": {"kernel": False, "bias": True}})
    biases.init(helpers.small_params())


def test_a_last_attribute_value_is_dropped_only_from_a_variable_of_nnx():
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Attention:
        query: jax.Array
        value: jax.Array

    plain = {"attention": Attention(jnp.ones(2), jnp.ones(2)), "value": jnp.ones(2)}
    assert trees.leaf_paths(plain) == ["attention/query", "attention/value", "value"]
    assert trees.leaf_paths(nnx.state(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))) == ["bias", "kernel"]


def test_the_same_leaves_may_be_exempted_by_a_tree_or_a_function(x64):
    params = helpers.small_params()
    tree = {"dense": {"kernel": False, "bias": True}}
    by_tree, by_default = (offsets(tx, params, params) for tx in (sam_optax.asam(exempt=tree), sam_optax.asam()))
    chex.assert_trees_all_equal(by_tree, by_default)


@pytest.mark.parametrize("kind", ["tree", "function"])
def test_a_mask_from_an_nnx_state_fits_the_nnx_optimizer(kind):
    model, norms = NnxNet(), sam_optax.by_path(lambda path: path.startswith("norm"))
    mask = norms(nnx.state(model, nnx.Param)) if kind == "tree" else norms
    tx = optax.chain(sam_optax.sam(0.5, mask=mask), optax.sgd(0.1))
    optimizer, offsets_of_call = nnx.Optimizer(model, tx, wrt=nnx.Param), []
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))

    def grad_fn(moved: Any) -> Any:
        offsets_of_call.append(jax.tree.map(jnp.subtract, jax.tree.leaves(moved), jax.tree.leaves(params)))
        return jax.tree.map(jnp.ones_like, moved)

    optimizer.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)), grad_fn=grad_fn)
    moved = {path for path, x in zip(PATHS["nnx"], offsets_of_call[0], strict=True) if np.any(x)}
    assert moved == {"norm/bias", "norm/scale"}


def test_a_mask_in_the_shape_of_an_equinox_module_is_a_tree_though_it_can_be_called():
    params = eqx.filter(eqx.nn.Linear(2, 3, key=jax.random.key(0)), eqx.is_inexact_array)
    weights = jax.tree.map(lambda x: x.ndim == 2, params)
    assert callable(weights)
    for tx in (sam_optax.sam(mask=weights), sam_optax.asam(exempt=weights)):
        _, state = tx.update(params, tx.init(params), params, grad_fn=lambda params: params)
        assert sam_optax.diagnostics(state).perturbation_norm > 0


@pytest.mark.parametrize("name", ["BatchNorm_0", "LayerNorm_3", "norm", "group_norm"])
def test_sam_on_perturbs_only_the_normalisation_layers(name):
    """The recipe of the docs, with the default names of the frameworks."""
    params = {name: {"scale": jnp.ones(2), "bias": jnp.zeros(2)}, "Dense_0": {"kernel": jnp.ones((2, 2))}}
    points = []
    tx = sam_optax.sam(rho=0.5, mask=sam_optax.by_path(lambda path: "norm" in path.lower()))
    tx.update(params, tx.init(params), params, grad_fn=lambda at: points.append(at) or at)
    np.testing.assert_array_equal(points[0]["Dense_0"]["kernel"], params["Dense_0"]["kernel"])
    np.testing.assert_allclose(np.linalg.norm(points[0][name]["scale"] - 1), 0.5, rtol=1e-6)


def test_frozen_parameters_are_neither_perturbed_nor_updated_with_multi_transform():
    """The documented way: a masked SAM, followed by `optax.multi_transform`."""
    frozen = sam_optax.by_path(lambda path: path.endswith("bias"))
    trained = sam_optax.by_path(lambda path: not path.endswith("bias"))
    labels = lambda params: jax.tree.map(lambda x: "frozen" if x else "trained", frozen(params))  # noqa: E731
    behind = optax.multi_transform({"trained": optax.sgd(0.1, momentum=0.9), "frozen": optax.set_to_zero()}, labels)
    tx = optax.chain(sam_optax.gsam(rho=0.5, mask=trained), behind)
    before, batches = helpers.small_params(), helpers.small_batches(3)
    after = helpers.descend(tx, before, batches)[-1]
    np.testing.assert_array_equal(after["dense"]["bias"], before["dense"]["bias"])

    def loss_of_kernel(kernel: Any, *batch: Any) -> jax.Array:
        return helpers.small_loss({"dense": {"kernel": kernel, "bias": before["dense"]["bias"]}}, *batch)

    first = optax.chain(sam_optax.sam(rho=0.5), optax.sgd(0.1, momentum=0.9))
    expected = helpers.descend(first, before["dense"]["kernel"], batches, loss_of_kernel)[-1]
    masked = optax.chain(sam_optax.sam(rho=0.5, mask=trained), behind)
    ours = helpers.descend(masked, before, batches)[-1]
    chex.assert_trees_all_close(ours["dense"]["kernel"], expected, rtol=1e-5, atol=1e-6)
