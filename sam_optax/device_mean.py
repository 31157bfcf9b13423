"""The mean of a method's updates over the devices, with one perturbation for each device."""

from typing import Any

import jax
import optax

from sam_optax import devices, validation
from sam_optax.method_states import is_ascending
from sam_optax.typing import Params, State, Updates


def average_over(
    axis_name: Any, method: optax.GradientTransformation | None = None
) -> optax.GradientTransformationExtraArgs:
    """The mean over the devices of a method's updates, `mean_i combiner(g_i, g_{s,i})`: one perturbation per device.

    It follows a method and precedes the optimizer, under `jax.shard_map`, `jax.pmap` or `jax.vmap`. A mean of only the
    clean gradients, before the method, would let the replicas drift apart. Means both before and after the
    method are wrong for GSAM, which is not linear in the gradients. If the method itself is given, its state is
    averaged, too: the floating leaves, such as the momenta of a perturbation, and the diagnostics, which count as
    measured if every device measured them. Give the method if its state is replicated. All
    devices have equal weight; for parts of unequal weight use
    `sharpness_aware_grad(..., axis_name=..., batch_weight=...)`.

    Under `jax.shard_map` each device must pass its own clean gradient. JAX sums a gradient over the devices if its
    parameters are equal on all of them; `jax.lax.pcast(params, axis_name, to="varying")` prevents that, and so does
    `sharpness_aware_grad(..., axis_name=...)`, which is shorter and gives the same result. If the optimizer reads the
    parameters, for weight decay, call it outside of the mapped function, with parameters that are equal on all devices.

    Args:
      axis_name: the device axis, or axes.
      method: the method whose updates and state are averaged; None: the incoming updates of the chain.

    Returns:
      A transformation: `method` with the mean, or only the mean.

    Raises:
      ValueError: If `axis_name` is None, or `method` is not a transformation; and, in `init`, if `method` holds two
        sharpness-aware methods.

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
    validation.check_transformation("method", before)
    inner = optax.with_extra_args_support(before)

    def averaged(node: Any) -> Any:
        # each device has its own w + ε, which two_phases reads from the state
        return node if is_ascending(node) else devices.mean_state(node, axis_name)

    def init(params: Params) -> State:
        state = inner.init(params)
        validation.check_one_method("method", state)
        return state

    def update(
        updates: Updates, state: State, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, State]:
        updates, state = inner.update(updates, state, params, **extra_args)
        return devices.mean(updates, axis_name), jax.tree.map(averaged, state, is_leaf=is_ascending)

    return optax.GradientTransformationExtraArgs(init, update)
