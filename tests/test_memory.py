"""Temporary memory of a compiled step, besides its arguments and results, in copies of the parameters."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import sam_optax
from tests import helpers

MEMORY_FIRST = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}

Layer = Callable[[jax.Array, jax.Array], jax.Array]


def dense(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.tanh(x @ kernel)


def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    axes = ("NHWC", "HWIO", "NHWC")
    return jax.nn.relu(jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=axes))


def copies(
    method: optax.GradientTransformation,
    layer: Layer,
    kernel_shape: tuple[int, ...],
    shape: tuple[int, ...],
    **options: Any,
) -> float:
    """Copies of the parameters of three layers, whose inputs take very little memory."""
    params = {str(number): jnp.zeros(kernel_shape) for number in range(3)}

    def loss(params: Any, x: jax.Array) -> jax.Array:
        for kernel in params.values():
            x = layer(x, kernel)
        return jnp.mean(x)

    tx = optax.chain(method, optax.sgd(0.1, momentum=0.9))
    compiled = helpers.make_step(tx, loss).lower(params, tx.init(params), jnp.ones(shape)).compile(options)
    return compiled.memory_analysis().temp_size_in_bytes / sum(x.nbytes for x in params.values())


def test_without_diagnostics_sam_frees_the_clean_gradient_before_the_second_pass():
    of_a_layer = (dense, (200, 200), (2, 200))
    bare = sam_optax.without_diagnostics(sam_optax.sam())
    assert copies(bare, *of_a_layer) < copies(sam_optax.sam(), *of_a_layer) - 0.95


def test_with_memory_first_gsam_holds_no_second_copy_of_a_gradient_of_convolutions():
    """Otherwise there are two copies in different layouts, because the inner product uses its own layout."""
    assert copies(sam_optax.gsam(), convolution, (3, 3, 64, 64), (2, 8, 8, 64), **MEMORY_FIRST) < 1


def test_memory_first_saves_sam_and_gsam_at_least_half_a_copy():
    of_a_layer = (dense, (200, 200), (2, 200))
    for method in (sam_optax.sam(), sam_optax.gsam()):
        assert copies(method, *of_a_layer, **MEMORY_FIRST) < copies(method, *of_a_layer) - 0.5
