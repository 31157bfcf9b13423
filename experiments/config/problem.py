"""The problem of a run: which examples it fits, and on which its error is reported."""

from dataclasses import dataclass

from experiments import data
from experiments.config.checks import check_choice, check_count, check_fraction


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Which examples are fitted.

    Attributes:
      dataset: digits (8x8 scans of handwritten digits, embedded), or cifar10, cifar100, fashion_mnist, mnist,
        svhn_cropped, tiny_imagenet or imagenet2012 of TensorFlow Datasets.
      train_examples: How many of the training examples are there for the run, the first ones; left out, all.
      split: Of the digits, whose seed chooses the test images: the split of this seed; left out, of the run's own.
      label_noise: The fraction of the training labels that are wrong, each drawn from the other classes.
      validation: The fraction of the training examples that is held out, and takes the place of the test set.
    """

    dataset: str = "digits"
    train_examples: int | None = None
    split: int | None = None
    label_noise: float = 0.0
    validation: float = 0.0

    def check_problem(self) -> None:
        """Refuse what cannot be."""
        check_choice("dataset", self.dataset, data.NAMES)
        if self.train_examples is not None:
            check_count("train_examples", self.train_examples)
        if self.split is not None and self.split < 0:
            raise ValueError(f"split is {self.split}: give a seed, an integer of at least 0.")
        for name in ("label_noise", "validation"):
            check_fraction(name, getattr(self, name))

    def num_examples(self, stored: int) -> int:
        """How many examples are trained on, of so many that are stored as training examples."""
        available = stored if self.train_examples is None else min(self.train_examples, stored)
        return available - round(self.validation * available)
