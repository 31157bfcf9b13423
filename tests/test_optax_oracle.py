"""Optax's own SAM in its opaque mode, as a reference."""

import functools
import itertools
from typing import Any

import chex
import jax
import optax
import optax.contrib
import pytest

import sam_optax
from tests import helpers


def optax_sam(base: optax.GradientTransformation, rho: float, params: Any, batches: Any) -> Any:
    ascent = optax.chain(optax.contrib.normalize(), optax.sgd(rho))
    tx = optax.contrib.sam(base, ascent, opaque_mode=True)

    @jax.jit
    def step(params: Any, state: Any, *batch: Any) -> tuple[Any, Any]:
        gradient = functools.partial(jax.grad(helpers.golden_loss), x=batch[0], y=batch[1])
        updates, state = tx.update(gradient(params), state, params, grad_fn=lambda w, _: gradient(w))
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for batch in batches:
        params, state = step(params, state, *batch)
    return params


@pytest.mark.parametrize("base", helpers.BASES)
def test_sam_equals_optax_sam_over_100_steps(base, x64):
    golden = helpers.golden()
    batches = list(itertools.islice(itertools.cycle(golden.batches), 100))
    tx = optax.chain(sam_optax.sam(rho=0.05), helpers.BASES[base]())
    ours = helpers.descend(tx, golden.params, batches, helpers.golden_loss)[-1]
    theirs = optax_sam(helpers.BASES[base](), 0.05, golden.params, batches)
    chex.assert_trees_all_close(ours, theirs, rtol=0, atol=1e-10)
