"""How far a run has come: with the seed and the trained state, all that is needed to go on."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from experiments.training.epoch_noise import EpochNoise


class Progress(NamedTuple):
    """The position of a run.

    Attributes:
      step: updates so far, and so batches that were read.
      epoch: epochs that were closed, that is evaluated and written down.
      gradient_evaluations: so far.
      skipped: steps that were not finite and were left out, so far.
      counted: steps of the open epoch that its means are over.
      loss: the sum of their losses.
      error: the sum of their errors.
      noise: that of the gradients of the open epoch, where it is measured.
      growth: where an adaptive batch plan stands, as its controller keeps it; None where none has decided yet.
    """

    step: int = 0
    epoch: int = 0
    gradient_evaluations: int = 0
    skipped: int = 0
    counted: int = 0
    loss: float = 0.0
    error: float = 0.0
    noise: EpochNoise = EpochNoise()
    growth: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> "Progress":
        """The position that `progress._asdict()` was, by way of JSON; what an older version did not save is as new."""
        noise = EpochNoise.of(saved["noise"]) if "noise" in saved else EpochNoise()
        return cls(**{**saved, "noise": noise})

    def after(self, metrics: dict[str, Any], gradient_evaluations: int) -> "Progress":
        """The position after one more step, which measured `metrics` with so many evaluations of a gradient."""
        skipped = int(metrics.get("skipped", 0))
        moved = self._replace(
            step=self.step + 1,
            gradient_evaluations=self.gradient_evaluations + gradient_evaluations,
            skipped=self.skipped + skipped,
        )
        if skipped:
            return moved
        loss, error = self.loss + float(metrics["loss"]), self.error + float(metrics["error"])
        return moved._replace(counted=self.counted + 1, loss=loss, error=error, noise=self.noise.after(metrics))

    def means(self) -> dict[str, float]:
        """The training figures of the open epoch; NaN where all of its steps were left out."""
        counted = self.counted or float("nan")
        return {"train_loss": self.loss / counted, "train_error": self.error / counted}

    def closed(self) -> "Progress":
        """The position after the open epoch."""
        return self._replace(epoch=self.epoch + 1, counted=0, loss=0.0, error=0.0, noise=EpochNoise())
