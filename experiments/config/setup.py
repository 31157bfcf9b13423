"""What the runs of a study share."""

from dataclasses import dataclass

from experiments.config.descent import Descent
from experiments.config.network import Network
from experiments.config.problem import Problem
from experiments.config.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Setup(Descent, Recipe, Network, Problem):  # fields stand in the order of the last base to the first
    """What the runs of a study share: the problem, the network, the recipe and the descent."""

    def __post_init__(self) -> None:
        self.check_problem()
        self.check_network()
        self.check_recipe()
        self.check_descent()
