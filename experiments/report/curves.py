"""The quantities that the pictures of runs show, each with the words for it."""

from typing import NamedTuple


class Quantity(NamedTuple):
    """Something that a picture shows.

    Attributes:
      name: of the field in `metrics.jsonl`, and of the curve.
      title: what it is called.
      axis: the label of its axis, with the unit.
      note: what a reader has to know about the quantity.
      is_set: whether it is set before a step, and not measured in it.
    """

    name: str
    title: str
    axis: str
    note: str = ""
    is_set: bool = False


_NOISE = "Of the mini-batch, whose noise falls as the batch grows: it need not tell how near a stationary point is."

QUANTITIES = (
    Quantity("train_loss", "Training loss", "cross-entropy, mean of the epoch"),
    Quantity("test_error", "Test error", "test error, %"),
    Quantity("grad_norm", "Norm of the mini-batch gradient", "norm, mean of the epoch", _NOISE),
    Quantity("perturbed_grad_norm", "Norm of the gradient at the perturbed point", "norm, mean of the epoch", _NOISE),
    Quantity("cosine", "Cosine of the angle between both gradients", "cosine, mean of the epoch"),
    Quantity(
        "surrogate_gap",
        "Surrogate gap, the perturbed loss less the clean one",
        "cross-entropy, mean of the epoch",
        "On the mini-batch: it grows with ρ, so compare methods of the same radius.",
    ),
    Quantity("batch_size", "Batch size", "batch size, examples", is_set=True),
    Quantity("learning_rate", "Learning rate", "learning rate", is_set=True),
    Quantity("rho", "Radius of the perturbation", "radius ρ", is_set=True),
)


NOISE_SCALE = Quantity("noise_scale", "Noise scale", "examples")
"""What decided on the batch size, where it was decided on the way; an epoch that measured no noise has none."""
