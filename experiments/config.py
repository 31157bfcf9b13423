"""What a run is: a pure function of these values."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments import data, models
from experiments.training.learning_rate import SCHEDULES
from experiments.training.optimizer import BASES, METHODS
from sam_optax import BatchPlan

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What the runs of a study share.

    Attributes:
      dataset: digits (8x8 scans of handwritten digits, embedded), or cifar10, cifar100, fashion_mnist, mnist or
        svhn_cropped of TensorFlow Datasets.
      model: small_resnet (ResNet-8, 78,000 parameters) or resnet18 (11 million).
      rho: The radius of sam, gsam and asam; left out, the method's own: 0.05, and 0.5 for asam.
      alpha: The weight of gsam's surrogate gap.
      optimizer: The base optimizer: sgd or adamw.
      learning_rate: Its initial learning rate.
      momentum: Of sgd.
      weight_decay: Added to sgd's gradient; apart from the gradient with adamw.
    """

    dataset: str = "digits"
    model: str = "small_resnet"
    rho: float | None = None
    alpha: float = 0.02
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for name, known in (("dataset", data.NAMES), ("model", models.NAMES), ("optimizer", BASES)):
            check_choice(name, getattr(self, name), known)
        for name in ("rho", "alpha", "learning_rate", "momentum", "weight_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= _LARGEST:
                raise ValueError(f"{name} is {value}: give a finite number of at least 0.")
        if self.momentum >= 1:
            raise ValueError(f"momentum is {self.momentum}: give a number below 1, or no gradient is ever forgotten.")
        if self.optimizer == "adamw" and self.momentum:
            raise ValueError(f"momentum is {self.momentum}: adamw has its own, leave it out.")


@dataclass(frozen=True, kw_only=True)
class Config(Setup):
    """Train one network.

    Attributes:
      method: sgd (the base optimizer alone), sam, gsam or asam.
      batch_plan: Epochs x batch size, stage by stage: 40x16,40x32,40x64; 200x128 is constant.
      lr_schedule: constant, cosine or linear over the epochs; both fall to 1% of the rate.
      seed: Determines the split, the initial parameters, the order of the data and its augmentation.
    """

    method: str = "gsam"
    batch_plan: str = "5x16,5x32,5x64,5x128,5x256"
    lr_schedule: str = "constant"
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("method", self.method, METHODS)
        check_choice("lr_schedule", self.lr_schedule, SCHEDULES)
        if self.rho is None:
            object.__setattr__(self, "rho", METHODS[self.method].rho)
        super().__post_init__()
        check_plan("batch_plan", self.batch_plan)
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}: give an integer of at least 0 and below 2³², which keys can hold.")

    @property
    def plan(self) -> BatchPlan:
        """The batch plan."""
        return BatchPlan.parse(self.batch_plan)

    @property
    def effective(self) -> "Config":
        """The config with what its method does not read set to 0: where these are equal, so are the runs."""
        unread = {name: 0.0 for name in ("rho", "alpha") if name not in METHODS[self.method].uses}
        return dataclasses.replace(self, **unread)

    def save(self, path: Path) -> None:
        """Write the config into a new file."""
        with path.open("x", encoding="utf-8") as file:
            json.dump(dataclasses.asdict(self), file, indent=2)

    @classmethod
    def load(cls, path: Path) -> "Config":
        """Read the config that `save` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def check_choice(name: str, value: str, known: Iterable[str]) -> None:
    """Refuse a value of the argument `name` that is not `known`."""
    if value not in known:
        raise ValueError(f"{name} is {value!r}: choose one of {', '.join(known)}.")


def check_plan(name: str, text: str) -> None:
    """Refuse a text of the argument `name` that is no batch plan."""
    try:
        BatchPlan.parse(text)
    except ValueError as error:
        raise ValueError(f"{name} is {text!r}: {error}") from error
