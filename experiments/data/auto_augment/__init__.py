"""AutoAugment (arXiv 1805.09501) with its policy for CIFAR-10, in the graph of a tf.data pipeline."""

from experiments.data.auto_augment.augment import auto_augment

__all__ = ["auto_augment"]
