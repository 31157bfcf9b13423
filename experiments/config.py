"""What a run is: a pure function of these values."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments import data, models
from experiments.training import policies
from experiments.training.learning_rate import SCHEDULES
from experiments.training.methods import METHODS
from experiments.training.optimizer import BASES
from sam_optax import BatchPlan, Policy

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What the runs of a study share.

    Attributes:
      dataset: digits (8x8 scans of handwritten digits, embedded), or cifar10, cifar100, fashion_mnist, mnist or
        svhn_cropped of TensorFlow Datasets.
      model: small_resnet (ResNet-8, 78,000 parameters) or resnet18 (11 million).
      rho: The method's radius; left out, that of its paper: 0.05 for most, 0.1 for friendly_sam and look_sam, 0.3 for
        msam, 0.5 for asam, 2.0 for ported_asam.
      alpha: The weight of gsam's surrogate gap, 0.02 left out, or of look_sam's old direction, 0.7.
      optimizer: The base optimizer: sgd or adamw.
      learning_rate: Its initial learning rate.
      momentum: Of sgd; left out, 0, and 0.9 for msam, which perturbs along it.
      weight_decay: Added to sgd's gradient; apart from the gradient with adamw.
    """

    dataset: str = "digits"
    model: str = "small_resnet"
    rho: float | None = None
    alpha: float | None = None
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float | None = None
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for name, known in (("dataset", data.NAMES), ("model", models.NAMES), ("optimizer", BASES)):
            check_choice(name, getattr(self, name), known)
        for name in ("rho", "alpha", "learning_rate", "momentum", "weight_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= _LARGEST:
                raise ValueError(f"{name} is {value}: give a finite number of at least 0.")
        if self.momentum is not None and self.momentum >= 1:
            raise ValueError(f"momentum is {self.momentum}: give a number below 1, or no gradient is ever forgotten.")
        if self.optimizer == "adamw" and self.momentum:
            raise ValueError(f"momentum is {self.momentum}: adamw has its own, leave it out.")


@dataclass(frozen=True, kw_only=True)
class Config(Setup):
    """Train one network.

    Attributes:
      method: sgd (the base optimizer alone), sam, gsam, gsam_clean, asam, ported_asam, friendly_sam, vasso, look_sam,
        wsam, wsam_decoupled, unified_sam, unnormalized_sam, stable_sam, functional_sam or msam.
      when: The steps that make a second pass: always, every:5, after:100 (steps), last:0.3 (of the epochs),
        bernoulli:0.5 (with a probability) or ae_sam (where the gradient is long); left out, every:5 for look_sam,
        always for the others.
      batch_plan: Epochs x batch size, stage by stage: 40x16,40x32,40x64; 200x128 is constant.
      lr_schedule: constant, cosine or linear over the epochs; both fall to 1% of the rate.
      seed: Determines the split, the initial parameters, the order of the data and its augmentation.
    """

    method: str = "gsam"
    when: str | None = None
    batch_plan: str = "5x16,5x32,5x64,5x128,5x256"
    lr_schedule: str = "constant"
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("method", self.method, METHODS)
        check_choice("lr_schedule", self.lr_schedule, SCHEDULES)
        for name in ("rho", "alpha", "when"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(METHODS[self.method], name))
        if self.momentum is None:
            object.__setattr__(self, "momentum", 0.0 if self.optimizer == "adamw" else METHODS[self.method].momentum)
        super().__post_init__()
        check_plan("batch_plan", self.batch_plan)
        self._check_method()
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}: give an integer of at least 0 and below 2³², which keys can hold.")

    def _check_method(self) -> None:
        method = METHODS[self.method]
        try:
            self.policy(max(stage.batch_size for stage in self.plan.stages))
        except ValueError as error:
            raise ValueError(f"when is {self.when!r}: {error}") from error
        if method.passes == 1 and self.when != "always":
            raise ValueError(f"when is {self.when!r}, and {self.method} makes no second pass: leave it out.")
        if self.method == "msam" and self.optimizer == "sgd" and not self.momentum:
            raise ValueError("momentum is 0.0, and msam perturbs along the momentum: give one, 0.9 for instance.")

    @property
    def plan(self) -> BatchPlan:
        """The batch plan."""
        return BatchPlan.parse(self.batch_plan)

    def policy(self, num_examples: int) -> Policy:
        """When a second pass is made."""
        return policies.parse(str(self.when), self.plan, num_examples, self.seed)

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


def check_seeds(seeds: tuple[int, ...]) -> None:
    """Refuse seeds of a study that are none, or not each another."""
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds is {seeds}: give at least one, each once.")
