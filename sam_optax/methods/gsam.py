"""GSAM: surrogate-gap-guided sharpness-aware minimisation, the method of the paper."""

from typing import Literal

import optax

from sam_optax.combiners import gap_guided, gap_guided_clean
from sam_optax.perturbations import normalized_ascent
from sam_optax.policies import Policy, always
from sam_optax.transformation import sharpness_aware
from sam_optax.typing import Mask, ScalarOrSchedule

_COMBINERS = {"perturbed": gap_guided, "clean": gap_guided_clean}


def gsam(
    rho: ScalarOrSchedule = 0.05,
    alpha: ScalarOrSchedule = 0.02,
    *,
    minimize: Literal["perturbed", "clean"] = "perturbed",
    when: Policy = always(),
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """GSAM: descend on `g_s − α g_⊥`, with SAM's `ε` and the part `g_⊥` of `g` that is orthogonal to `g_s`.

    The perturbed loss falls as with SAM, and the surrogate gap between it and the clean loss falls too. With
    `minimize="clean"` the clean loss and the gap fall: `g + α (g_s − ⟨g_s, ĝ⟩ ĝ)`. From "Surrogate Gap
    Minimization Improves Sharpness-Aware Training" (Zhuang et al., 2022, https://arxiv.org/abs/2203.08065).

    Args:
      rho: the radius `ρ ≥ 0`, in units of the parameters' global L2 norm; a number or a schedule over updates.
        0.05 suits convolutional networks, 0.6 vision transformers.
      alpha: the weight `α ≥ 0` of the gap; a number or a schedule over updates. 0.02 suits convolutional
        networks, 0.1 vision transformers. At 0 it is SAM, or with `minimize="clean"` the base optimizer.
      minimize: which loss falls along with the gap.
      when: the steps that make a second pass.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one.

    Returns:
      A transformation whose `update` takes `grad_fn`, and `perturb`; see `sharpness_aware`.

    Raises:
      ValueError: If `rho` or `alpha` is negative or not finite, if `minimize` is neither word, or if `mask` is
        no tree of bools.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> tx = optax.chain(sam_optax.gsam(rho=0.05, alpha=0.02), optax.sgd(0.1, momentum=0.9))
      >>> value_and_grad = sam_optax.value_and_grad(lambda w, x: jnp.mean((x @ w) ** 2))
      >>> w, x = jnp.array([1.0, 2.0]), jnp.diag(jnp.array([1.0, 3.0]))
      >>> loss, grads, grad_fn = value_and_grad(w, x)
      >>> updates, state = tx.update(grads, tx.init(w), w, grad_fn=grad_fn)
      >>> print(*(f"{x:.4f}" for x in optax.apply_updates(w, updates)))
      0.8998 0.1551
    """
    if minimize not in tuple(_COMBINERS):
        raise ValueError(f"minimize is {minimize!r}: give one of {', '.join(map(repr, _COMBINERS))}.")
    return sharpness_aware(normalized_ascent(rho), _COMBINERS[minimize](alpha), when, mask)
