"""The descent of a run: its radius, its base optimizer, and the average of its weights."""

from dataclasses import dataclass

from experiments.config.checks import check_choice, check_count, check_fraction, check_number
from experiments.training.optimizer import BASES

PERTURBATIONS = ("global", "device")
ON_NONFINITE = ("skip", "stop")


@dataclass(frozen=True, kw_only=True)
class Descent:
    """How the parameters descend.

    Attributes:
      rho: The method's radius; left out, that of its paper: 0.05 for most, 0.1 for friendly_sam and look_sam, 0.3 for
        msam, 0.5 for asam, 2.0 for ported_asam.
      alpha: The weight of gsam's surrogate gap, 0.02 left out, or of look_sam's old direction, 0.7.
      ascent_steps: The ascent steps of k_step_sam, each of length rho / ascent_steps and with a gradient of its own; by
        default 2.
      m: How many examples share a perturbation, and BatchNorm's statistics; left out, those of a batch. Batches of
        no more than m stay whole.
      perturbation: Where a run has several devices: global, one perturbation for all, or device, one on each, with
        BatchNorm's statistics, for its part of a batch; then the result depends on the number of devices.
      micro_batch: How many examples go through the network at a time, both passes of a step being those of the whole
        batch: a batch larger than memory goes through in parts, and one program serves every stage of the plan.
        BatchNorm's statistics, and mixing, are those of a part.
      optimizer: The base optimizer: sgd or adamw.
      learning_rate: Its initial learning rate.
      warmup_epochs: In how many epochs, within the plan, the rate rises to that, from 1% of it.
      momentum: Of sgd; left out, 0, and 0.9 for msam, which perturbs along it.
      weight_decay: Added to sgd's gradient; apart from the gradient with adamw.
      ema: Evaluate a running average of the parameters, with this weight for the past at each update: 0.999, for
        instance; at 0 the parameters themselves.
      on_nonfinite: What a step does whose loss, gradients or new state are not finite: skip, it changes nothing and is
        counted, or stop, the run ends before it, saved; left out, it is made as any other.
    """

    rho: float | None = None
    alpha: float | None = None
    ascent_steps: int | None = None
    m: int | None = None
    perturbation: str = "global"
    micro_batch: int | None = None
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    warmup_epochs: float = 0.0
    momentum: float | None = None
    weight_decay: float = 0.0
    ema: float = 0.0
    on_nonfinite: str | None = None

    @property
    def in_shards(self) -> bool:
        """Whether parts of a batch have perturbations of their own."""
        return self.m is not None or self.perturbation == "device"

    def check_descent(self) -> None:
        """Refuse what cannot be."""
        check_choice("optimizer", self.optimizer, BASES)
        check_choice("perturbation", self.perturbation, PERTURBATIONS)
        for name in ("rho", "alpha", "learning_rate", "warmup_epochs", "momentum", "weight_decay"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name))
        for name in ("ascent_steps", "m", "micro_batch"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        check_fraction("ema", self.ema)
        if self.on_nonfinite is not None:
            check_choice("on_nonfinite", self.on_nonfinite, ON_NONFINITE)
        if self.momentum is not None and self.momentum >= 1:
            raise ValueError(f"momentum is {self.momentum}: give a number below 1, or no gradient is ever forgotten.")
        if self.optimizer == "adamw" and self.momentum:
            raise ValueError(f"momentum is {self.momentum}: adamw has its own, leave it out.")
