"""The recipe of a run: what is done to images and labels on their way to the network."""

from dataclasses import dataclass

from experiments.config.checks import check_count, check_fraction


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is done to images and labels, beside the shift and the mirror that belong to a data set.

    Attributes:
      auto_augment: Whether images go through AutoAugment's policy for CIFAR.
      random_erasing: With which probability a rectangle of an image is erased.
      mixing: With which probability the images of a batch are mixed with others of it, by mixup or by cutmix.
      label_smoothing: Which part of a label is spread over all classes.
      passes: How often an epoch goes through the training examples.
    """

    auto_augment: bool = False
    random_erasing: float = 0.0
    mixing: float = 0.0
    label_smoothing: float = 0.0
    passes: int = 1

    def check_recipe(self) -> None:
        """Refuse what cannot be."""
        check_fraction("label_smoothing", self.label_smoothing)
        check_count("passes", self.passes)
        for name in ("random_erasing", "mixing"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}: give a probability, from 0 to 1.")

    def epoch_size(self, num_examples: int) -> int:
        """How many examples an epoch has, of `num_examples` that there are."""
        return self.passes * num_examples
