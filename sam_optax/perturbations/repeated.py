"""The perturbation of k-step SAM: several ascent steps of an optimizer."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_optax import devices, hyperparameters, second_pass, trees, validation
from sam_optax.perturbations.gradient_direction import normalized_ascent
from sam_optax.typing import Params, ScalarOrSchedule, SecondPassFn, State, Updates


class RepeatedAscentState(NamedTuple):
    """The state of `repeated_ascent` with several steps. It is empty, since each update initialises the adversary."""


def repeated_ascent(adversary: optax.GradientTransformation, steps: int) -> optax.GradientTransformationExtraArgs:
    """The offset after several ascent steps of an optimizer on the loss of the batch.

        ε_0 = 0,  ε_{i+1} = ε_i − adversary(∇L(w + ε_i)),  ε = ε_steps

    The first ascent step uses the clean gradient, and each further step computes one more. A method with this
    perturbation costs `1 + steps` gradients, including the second pass at `w + ε`. A step that the policy skips costs
    one. The loop over the ascent steps is unrolled.

    With `perturbed_gradient` it is k-step SAM, equal to `optax.contrib.sam` with `sync_period = steps + 1` and the same
    adversary. The adversary is initialised in every update, so that a schedule in it counts the ascent steps of one
    update. For a radius that changes from update to update, wrap the method in `optax.inject_hyperparams`. If a
    gradient is zero in all entries, entries of the adversary's step that are not finite are set to zero, since
    `optax.contrib.normalize` divides by the norm.

    From "Sharpness-Aware Minimization for Efficiently Improving Generalization" (Foret et al., 2021,
    https://arxiv.org/abs/2010.01412), whose inner maximisation takes one step.

    Args:
      adversary: an optimizer that descends, such as `optax.chain(optax.contrib.normalize(), optax.sgd(rho))`; its
        updates are negated. It gets `w + ε_i` as `params`.
      steps: the number of ascent steps, at least 1.

    Returns:
      A transformation from gradients to offsets of the parameters' shapes and dtypes. Its `update` needs `params`, and
      with several steps `grad_fn`, which `sharpness_aware` passes on, with the decision `perturb`.

    Raises:
      ValueError: If `adversary` is not a transformation, or `steps` is not a positive integer; in `init`, if the
        adversary holds a sharpness-aware method; and, in `update`, if `params` or `grad_fn` is missing.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> adversary = optax.chain(optax.contrib.normalize(), optax.sgd(0.5))
      >>> method = sam_optax.sharpness_aware(
      ...     sam_optax.repeated_ascent(adversary, steps=2), sam_optax.perturbed_gradient()
      ... )
      >>> tx = optax.chain(method, optax.sgd(0.1))
      >>> gradient = jax.grad(lambda w: jnp.sum(w**2) / 2)
      >>> w = jnp.array([3.0, 4.0])
      >>> updates, state = tx.update(gradient(w), tx.init(w), w, grad_fn=gradient)
      >>> print(*(f"{x:.2f}" for x in updates))
      -0.36 -0.48
    """
    validation.check_transformation("adversary", adversary)
    hyperparameters.check_count("steps", steps, "the ascent steps of an update")
    inner = optax.with_extra_args_support(adversary)

    def init(params: Params) -> State:
        validation.check_no_method("adversary", inner.init(params), "give an optimizer without one.")
        return optax.EmptyState() if steps == 1 else RepeatedAscentState()

    def update(
        updates: Updates,
        state: State,
        params: Params | None = None,
        *,
        grad_fn: SecondPassFn | None = None,
        perturb: Any = True,
        value: Any = None,
        **extra_args: Any,
    ) -> tuple[Updates, State]:
        del value  # the loss at w, which is not the loss of the further steps
        if params is None:
            raise ValueError("params is missing: the adversary starts at them.")

        def climb() -> Updates:
            gradient, offset, memory = updates, trees.zeros_like(trees.widen(params)), inner.init(params)
            for step in range(steps):
                at = trees.shifted(params, offset)
                gradient = _gradient(grad_fn, at) if step else gradient
                descent, memory = inner.update(gradient, memory, at, **extra_args)
                offset = jax.tree.map(jnp.subtract, offset, _finite(descent, gradient))
            return trees.cast_like(offset, params)

        return devices.choose(perturb, climb, lambda: trees.zeros_like(params), like=updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def _gradient(grad_fn: Any, params: Params) -> Updates:
    if grad_fn is None:
        raise ValueError("grad_fn is missing: repeated_ascent takes a gradient at each of its steps.")
    validation.check_whole(params)
    return second_pass.at(params, grad_fn).gradient


def _finite(step: Updates, gradient: Updates) -> Updates:
    """The adversary's step, in the accumulator's dtype; zero where it is not finite if the whole gradient is zero."""
    is_zero = trees.inner(gradient, gradient) == 0
    return jax.tree.map(lambda x: jnp.where(is_zero & ~jnp.isfinite(x), 0, x), trees.widen(step))


def k_step_ascent(rho: ScalarOrSchedule = 0.05, steps: int = 2) -> optax.GradientTransformationExtraArgs:
    """The offset after several ascent steps of length `ρ / steps`, each along the gradient at its own point.

        ε_0 = 0,  ε_{i+1} = ε_i + (ρ / k) g_i / (‖g_i‖ + 1e-12),  g_i = ∇L(w + ε_i),  ε = ε_k

    It is `repeated_ascent` with normalised steps, and with a radius that may follow a schedule over updates. With one
    step it is `normalized_ascent(rho)`.

    Args:
      rho: the total length `ρ ≥ 0` of the steps, in units of the parameters' global L2 norm; a number or a schedule
        over updates.
      steps: the number `k` of ascent steps, at least 1.

    Returns:
      A transformation like that of `repeated_ascent`.

    Raises:
      ValueError: If `rho` is negative or not finite, or `steps` is not a positive integer.

    Example:
      >>> import jax, jax.numpy as jnp, sam_optax
      >>> ascent = sam_optax.k_step_ascent(rho=1.0, steps=2)
      >>> gradient = jax.grad(lambda w: jnp.sum(w**2) / 2)
      >>> w = jnp.array([3.0, 4.0])
      >>> offset, _ = ascent.update(gradient(w), ascent.init(w), w, grad_fn=gradient)
      >>> print(*(f"{x:.1f}" for x in offset))
      0.6 0.8
    """
    hyperparameters.check_nonnegative("rho", rho)
    hyperparameters.check_count("steps", steps, "the ascent steps of an update")

    def repeated(radius: Any) -> optax.GradientTransformationExtraArgs:
        return repeated_ascent(optax.chain(normalized_ascent(radius / steps), optax.scale(-1)), steps)

    def init(params: Params) -> State:
        return hyperparameters.init(params), repeated(0.0).init(params)

    def update(
        updates: Updates, state: State, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, State]:
        count, inner = state
        offset, inner = repeated(hyperparameters.at(rho, count.count)).update(updates, inner, params, **extra_args)
        return offset, (hyperparameters.advance(count), inner)

    return optax.GradientTransformationExtraArgs(init, update)
