"""The network of a run."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from experiments import models
from experiments.config.checks import check_choice, check_fraction

PRECISIONS = ("float32", "bfloat16")

_OPTIONS = ("stem", "shifted_patches", "locality_attention", "drop_path")


@dataclass(frozen=True, kw_only=True)
class Network:
    """Which network is trained.

    Attributes:
      model: small_resnet (ResNet-8, 78,000 parameters), resnet18 (11 million), resnet50 (24 million), wide_resnet28_10
        (37 million), vit_tiny (3 million) or vit_small (14 million).
      stem: Of a ResNet: cifar, a 3x3 convolution, or imagenet, a 7x7 convolution and pooling; left out, cifar.
      shifted_patches: Whether a ViT's tokens also see the image shifted by half a patch.
      locality_attention: Whether a ViT's tokens look away from themselves, at a temperature that is learned.
      drop_path: With which probability a ViT leaves out a branch, for each image by itself, while it trains.
      precision: What the network computes in: float32 or bfloat16, half the memory of activations. Parameters, the
        perturbation, norms, statistics, logits and the loss are float32 in any case; a small rho does not survive
        bfloat16, see docs/precision.md.
    """

    model: str = "small_resnet"
    stem: str | None = None
    shifted_patches: bool = False
    locality_attention: bool = False
    drop_path: float = 0.0
    precision: str = "float32"

    def check_network(self) -> None:
        """Refuse what cannot be."""
        check_choice("model", self.model, models.NAMES)
        if self.stem is not None:
            check_choice("stem", self.stem, models.STEMS)
        check_fraction("drop_path", self.drop_path)
        check_choice("precision", self.precision, PRECISIONS)
        models.check_options(self.model, dict(self.model_options))

    @property
    def model_options(self) -> tuple[tuple[str, Any], ...]:
        """What is asked for beside the model's name, as pairs of name and value."""
        asked = tuple((name, value) for name in _OPTIONS if (value := getattr(self, name)))
        return asked if self.precision == "float32" else (*asked, ("dtype", jnp.dtype(self.precision)))
