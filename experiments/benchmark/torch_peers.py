"""ResNet-18, ViT-Tiny and the steps of SAM and GSAM in PyTorch.

The networks have the layers of ours and the names that `load_torch` knows; the steps are those of `pytorch_optimizer`.
"""

from collections.abc import Callable
from typing import Any

import pytorch_optimizer
import torch
from torch import nn
from torch.nn import functional

_WIDTH, _DEPTH, _HEADS, _PATCH, _HIDDEN = 192, 9, 12, 4, 384  # of ViT-Tiny


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm, and a shortcut around them."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.residual_function = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.shortcut = nn.Sequential()
        if stride > 1 or channels_in != channels:
            projection = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features `(batch, channels_in, height, width)` to `(batch, channels, height/stride, width/stride)`."""
        return functional.relu(self.residual_function(x) + self.shortcut(x))


class ResNet18(nn.Module):
    """A 3x3 stem, four stages of two blocks, pooling, a linear layer."""

    def __init__(self, num_classes: int, channels_in: int) -> None:
        super().__init__()
        stem = nn.Conv2d(channels_in, 64, 3, padding=1, bias=False)
        self.conv1 = nn.Sequential(stem, nn.BatchNorm2d(64), nn.ReLU(inplace=True))
        width = 64
        for stage, channels in enumerate((64, 128, 256, 512)):
            first = BasicBlock(width, channels, 2 if stage else 1)
            setattr(self, f"conv{stage + 2}_x", nn.Sequential(first, BasicBlock(channels, channels, 1)))
            width = channels
        self.fc = nn.Linear(width, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images `(batch, channels, height, width)` to logits."""
        x = self.conv1(images)
        for stage in (self.conv2_x, self.conv3_x, self.conv4_x, self.conv5_x):
            x = stage(x)
        return self.fc(x.mean((2, 3)))


class PreNorm(nn.Module):
    """A LayerNorm, and what comes after it."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.norm, self.fn = nn.LayerNorm(_WIDTH), fn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens to tokens."""
        return self.fn(self.norm(x))


class Attention(nn.Module):
    """Self-attention, whose query, key and value have no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.to_qkv = nn.Linear(_WIDTH, 3 * _WIDTH, bias=False)
        self.to_out = nn.Sequential(nn.Linear(_WIDTH, _WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens `(batch, tokens, width)` to as many."""
        batch, tokens, _ = x.shape
        query, key, value = self.to_qkv(x).view(batch, tokens, 3, _HEADS, -1).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(query, key, value)
        return self.to_out(y.transpose(1, 2).reshape(batch, tokens, _WIDTH))


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(_WIDTH, _HIDDEN), nn.GELU(), nn.Identity(), nn.Linear(_HIDDEN, _WIDTH), nn.Identity()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens to tokens."""
        return self.net(x)


class Transformer(nn.Module):
    """Blocks of attention and of a feed-forward network, each with a shortcut around it."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [nn.ModuleList([PreNorm(Attention()), PreNorm(FeedForward())]) for _ in range(_DEPTH)]
        self.layers = nn.ModuleList(blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens to tokens."""
        for attention, feed_forward in self.layers:
            x = x + attention(x)
            x = x + feed_forward(x)
        return x


class ViTTiny(nn.Module):
    """Patches of four by four pixels and a class token, with learned positions, through nine blocks."""

    def __init__(self, num_classes: int, image_size: int, channels: int) -> None:
        super().__init__()
        self.to_patch_embedding = nn.Sequential(nn.Identity(), nn.Linear(_PATCH * _PATCH * channels, _WIDTH))
        self.cls_token = nn.Parameter(torch.randn(1, 1, _WIDTH))
        self.pos_embedding = nn.Parameter(torch.randn(1, (image_size // _PATCH) ** 2 + 1, _WIDTH))
        self.transformer = Transformer()
        self.mlp_head = nn.Sequential(nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, num_classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images `(batch, channels, height, width)` to logits."""
        batch, channels, height, width = images.shape
        grid = images.view(batch, channels, height // _PATCH, _PATCH, width // _PATCH, _PATCH)
        patches = grid.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, _PATCH * _PATCH * channels)
        x = self.to_patch_embedding(patches)
        x = torch.cat([self.cls_token.expand(batch, -1, -1), x], 1) + self.pos_embedding
        return self.mlp_head(self.transformer(x)[:, 0])


def create(name: str, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """The network `resnet18` or `vit_tiny`, initialised as PyTorch has it, for images `(height, width, channels)`."""
    torch.manual_seed(0)
    height, _, channels = image_shape
    return ResNet18(num_classes, channels) if name == "resnet18" else ViTTiny(num_classes, height, channels)


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
