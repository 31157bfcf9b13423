"""The steps of SAM and GSAM in PyTorch, as `pytorch_optimizer` has them."""

from collections.abc import Callable
from typing import Any

import pytorch_optimizer
import torch
from torch import nn
from torch.nn import functional

LEARNING_RATE, MOMENTUM = 0.1, 0.9

Step = Callable[[], float]
"""Makes a step, and returns its clean loss."""


def sam(network: nn.Module, images: Any, labels: Any, radius: float) -> Step:
    """SAM in front of SGD with momentum."""
    how = {"lr": LEARNING_RATE, "momentum": MOMENTUM}
    tx = pytorch_optimizer.SAM(network.parameters(), torch.optim.SGD, rho=radius, **how)

    def gradient() -> torch.Tensor:
        tx.zero_grad()
        loss = functional.cross_entropy(network(images), labels)
        loss.backward()
        return loss

    def step() -> float:
        loss = gradient()
        tx.step(gradient)
        return loss.item()

    return step


def gsam(network: nn.Module, images: Any, labels: Any, radius: float, alpha: float) -> Step:
    """GSAM in front of SGD with momentum, at a radius that stays."""
    base = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    constant = torch.optim.lr_scheduler.LambdaLR(base, lambda _: 1.0)
    radii = pytorch_optimizer.ProportionScheduler(constant, max_lr=LEARNING_RATE, max_value=radius, min_value=radius)
    tx = pytorch_optimizer.GSAM(network.parameters(), base, network, radii, alpha=alpha)
    tx.set_closure(functional.cross_entropy, images, labels)

    def step() -> float:
        _, loss = tx.step()
        return loss.item()

    return step
