"""One random key an example, whatever batch it stands in."""

import jax


def example_keys(key: jax.Array, positions: jax.Array) -> jax.Array:
    """The keys of the examples at `positions`, `(batch,)`, of a run with `key`."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)
