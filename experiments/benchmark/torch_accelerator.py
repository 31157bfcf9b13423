"""PyTorch's side of the comparison on an accelerator: its networks in a precision, eager or compiled."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch  # pyright: ignore[reportMissingImports] - an extra
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

from experiments.benchmark import torch_peers
from experiments.models import ImageShape


def device() -> torch.device:
    """Returns the accelerator, or the CPU if there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Autocast(nn.Module):
    """Computes a network in bfloat16, with parameters and logits in float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps images `(batch, channels, height, width)` to logits."""
        with torch.autocast(images.device.type, torch.bfloat16):
            return self.network(images).float()


class Steps(NamedTuple):
    """The steps of one network.

    Attributes:
      step: the function of each step, by name; it returns the clean loss.
      first_losses: the losses of the first two steps of SAM.
    """

    step: Mapping[str, Callable[[], torch.Tensor]]
    first_losses: list[float]

    def turn(self, name: str, steps: int) -> Callable[[], None]:
        """Returns a function that makes several steps, and then waits for the device."""
        step = self.step[name]

        def run() -> None:
            for _ in range(steps):
                step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()

        return run


class Networks(NamedTuple):
    """A function that creates the same network each time, and the precision in which it computes."""

    create: Callable[[], nn.Module]
    precision: str

    def weights(self) -> dict[str, np.ndarray]:
        """Returns the initial weights."""
        return {name: x.numpy() for name, x in self.create().state_dict().items()}

    def steps(self, images: np.ndarray, labels: np.ndarray, radius: float, alpha: float, *, is_compiled: bool) -> Steps:
        """Creates the steps; each has a network of its own.

        Args:
          images: the images, `(batch, height, width, channels)`.
          labels: the labels, `(batch,)`.
          radius: the radius of SAM and GSAM.
          alpha: the weight of GSAM's ascent in the direction that keeps the perturbed loss.
          is_compiled: whether the networks are compiled by `torch.compile`.
        """
        batch = torch.from_numpy(images).permute(0, 3, 1, 2).to(device(), memory_format=torch.channels_last)
        inputs = batch, torch.from_numpy(labels).long().to(device())
        networks = [self._prepared(is_compiled=is_compiled) for _ in range(3)]
        step = {
            "loss and gradient": _gradient(networks[0], *inputs),
            "SAM": torch_peers.sam(networks[1], *inputs, radius),
            "GSAM": torch_peers.gsam(networks[2], *inputs, radius, alpha),
        }
        return Steps(step, [float(step["SAM"]()) for _ in range(2)])

    def _prepared(self, *, is_compiled: bool) -> nn.Module:
        network = self.create().to(device(), memory_format=torch.channels_last)
        network = Autocast(network) if self.precision == "bfloat16" else network
        return torch.compile(network) if is_compiled else network


def create(model: str, precision: str, num_classes: int, image_shape: ImageShape) -> Networks:
    """Returns PyTorch's network `model`, and switches TF32 on for the process."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    return Networks(lambda: torch_peers.create(model, num_classes, image_shape), precision)


def _gradient(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], torch.Tensor]:
    def step() -> torch.Tensor:
        network.zero_grad()
        loss = functional.cross_entropy(network(images), labels)
        loss.backward()
        return loss.detach()

    return step
