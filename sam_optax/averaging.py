"""The mean over the devices, behind a method: one perturbation a device."""

from typing import Any

import optax

from sam_optax import devices, parts
from sam_optax.typing import Params, State, Updates


def average_over(
    axis_name: Any, method: optax.GradientTransformation | None = None
) -> optax.GradientTransformationExtraArgs:
    """The mean over the devices of what stands before it, `mean_i combiner(g_i, g_{s,i})`: one perturbation a device.

    It stands behind a method and before the optimizer, under `jax.shard_map`, `jax.pmap` or `jax.vmap`. A mean in front
    alone would let the replicas drift apart, and a mean on both sides is wrong for GSAM, which is not linear in them.
    Given the method itself it averages its state, too, floating leaves alone: momenta of the perturbation, and
    the diagnostics. Do that, unless the method's state is kept apart for each device.

    Under `jax.shard_map` the clean gradient has to be each device's own. By parameters that are the same everywhere JAX
    sums it over the devices; `jax.lax.pcast(params, axis_name, to="varying")` prevents that, and is what
    `sharpness_aware_grad(..., axis_name=...)` does, the shorter way to the same. An optimizer behind that reads the
    parameters, for weight decay, is best kept apart then, and given those that are the same everywhere.

    Args:
      axis_name: the device axis, or axes.
      method: the method whose updates and state are averaged; None: the updates of what stands before it in a chain.

    Returns:
      A transformation: of `method`, or to stand behind it.

    Raises:
      ValueError: If `axis_name` is None, or `method` is no transformation.

    Example:
      Two devices that `jax.vmap` simulates:

      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> tx = optax.chain(sam_optax.average_over("devices", sam_optax.sam(rho=0.1)), optax.sgd(0.1))
      >>> value_and_grad = sam_optax.value_and_grad(lambda w, x: jnp.mean((x @ w) ** 2))
      >>> def step(w, state, x):
      ...     loss, grads, grad_fn = value_and_grad(w, x)
      ...     return tx.update(grads, state, w, grad_fn=grad_fn)
      >>> w, x = jnp.array([1.0, 2.0]), jnp.array([[[1.0, 0.0]], [[0.0, 1.0]]])
      >>> updates, _ = jax.vmap(step, in_axes=(None, None, 0), axis_name="devices")(w, tx.init(w), x)
      >>> print(*(f"{x:.2f}" for x in updates[0]), *(f"{x:.2f}" for x in updates[1]))
      -0.11 -0.21 -0.11 -0.21
    """
    if axis_name is None:
        raise ValueError("axis_name is None: give the name of the device axis to average over.")
    before = optax.identity() if method is None else method
    parts.check_transformation("method", before)
    inner = optax.with_extra_args_support(before)

    def update(
        updates: Updates, state: State, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, State]:
        updates, state = inner.update(updates, state, params, **extra_args)
        return devices.mean(updates, axis_name), devices.mean_state(state, axis_name)

    return optax.GradientTransformationExtraArgs(inner.init, update)
