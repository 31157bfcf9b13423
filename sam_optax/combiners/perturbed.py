"""The perturbed gradient alone: the combiner of SAM."""

import optax

from sam_optax.combiners.combiner import Combiner


def perturbed_gradient() -> Combiner:
    """SAM's choice: descend on `g_s`; on a skipped step, on `g`.

    From "Sharpness-Aware Minimization for Efficiently Improving Generalization" (Foret et al., 2021,
    https://arxiv.org/abs/2010.01412).

    Returns:
      A combiner without state.

    Example:
      >>> import sam_optax
      >>> combiner = sam_optax.perturbed_gradient()
      >>> combiner.update({"w": 1.0}, {"w": 2.0}, combiner.init({"w": 0.0}))[0]
      {'w': 2.0}
    """
    return Combiner(
        init=lambda params: optax.EmptyState(),
        update=lambda clean, perturbed, state: (perturbed, state),
        skipped=lambda clean, state: (clean, state),
    )
