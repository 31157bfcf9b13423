"""The study on networks: methods by strategies, and what is measured on the way."""

from dataclasses import dataclass

from experiments.config.checks import check_count, check_number
from experiments.study import Grid
from experiments.study.grid import ADAPTIVE


@dataclass(frozen=True)
class NetworkStudy(Grid):
    """Train by methods and strategies, and measure the gradient over all training examples on the way.

    Attributes:
      strategies: The columns: constant, increasing, or the constant plan under a cosine or linear rate; or what else
        experiments.reproduce knows.
      every: Measure after every so many epochs, and after the last one.
      measured_rho: The radius of the SAM gradient that is measured, the same for all methods.
      measured_batch_size: Examples of one gradient while measuring.
      reestimate_batchnorm: To measure, give BatchNorm the statistics of the training examples at the weights; else its
        running ones, which in the first epochs are still mostly those it started with.
    """

    strategies: tuple[str, ...] = ("constant", "increasing", "cosine", "linear")
    every: int = 1
    measured_rho: float = 0.05
    measured_batch_size: int = 256
    reestimate_batchnorm: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("every", "measured_batch_size"):
            check_count(name, getattr(self, name))
        check_number("measured_rho", self.measured_rho)
        if ADAPTIVE in self.strategies:
            raise ValueError("strategies has 'adaptive', whose plan is not known beforehand: leave it out here.")
