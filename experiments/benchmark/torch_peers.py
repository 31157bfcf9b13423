"""ResNet-18, ViT-Tiny and the steps of SAM and GSAM in PyTorch.

The networks have the same layers as ours and the names that `load_torch` expects. The steps use `pytorch_optimizer`.
"""

from collections import OrderedDict
from collections.abc import Callable

import pytorch_optimizer  # pyright: ignore[reportMissingImports] - an extra
import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

_WIDTH, _DEPTH, _HEADS, _PATCH, _HIDDEN = 192, 9, 12, 4, 384  # of ViT-Tiny


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm, and a shortcut around them."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        first, second = _normalized(channels_in, channels, 3, stride), _normalized(channels, channels, 3, 1)
        self.residual_function = nn.Sequential(*first, nn.ReLU(inplace=True), *second)
        is_same = stride == 1 and channels_in == channels
        self.shortcut = nn.Sequential(*([] if is_same else _normalized(channels_in, channels, 1, stride)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps features `(batch, channels_in, height, width)` to `(batch, channels, height/stride, width/stride)`."""
        return functional.relu(self.residual_function(x) + self.shortcut(x))


def _normalized(channels_in: int, channels: int, kernel_size: int, stride: int) -> list[nn.Module]:
    padding = kernel_size // 2
    conv = nn.Conv2d(channels_in, channels, kernel_size, stride, padding, bias=False)
    return [conv, nn.BatchNorm2d(channels)]


def resnet18(num_classes: int, channels_in: int) -> nn.Module:
    """Returns ResNet-18, which maps images `(batch, channels, height, width)` to logits.

    It has a 3x3 stem, four stages of two blocks, pooling, and a linear layer.
    """
    stem = nn.Sequential(*_normalized(channels_in, 64, 3, 1), nn.ReLU(inplace=True))
    layers, width = OrderedDict[str, nn.Module](conv1=stem), 64
    for stage, channels in enumerate((64, 128, 256, 512)):
        first = BasicBlock(width, channels, 2 if stage else 1)
        layers[f"conv{stage + 2}_x"] = nn.Sequential(first, BasicBlock(channels, channels, 1))
        width = channels
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(width, num_classes)}
    return nn.Sequential(layers)


class Residual(nn.Module):
    """A LayerNorm followed by a module, with a shortcut around both."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.norm, self.fn = nn.LayerNorm(_WIDTH), fn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps tokens `(batch, tokens, width)` to tokens of the same shape."""
        return x + self.fn(self.norm(x))


class Attention(nn.Module):
    """Multi-head self-attention; query, key and value have no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.to_qkv = nn.Linear(_WIDTH, 3 * _WIDTH, bias=False)
        self.to_out = nn.Sequential(nn.Linear(_WIDTH, _WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps tokens `(batch, tokens, width)` to tokens of the same shape."""
        batch, tokens, _ = x.shape
        query, key, value = self.to_qkv(x).view(batch, tokens, 3, _HEADS, -1).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(query, key, value)
        return self.to_out(y.transpose(1, 2).reshape(batch, tokens, _WIDTH))


def _block() -> nn.Module:
    """Returns a block: attention, and two linear layers with a GELU between them; both have a shortcut."""
    hidden = nn.Linear(_WIDTH, _HIDDEN), nn.GELU(), nn.Identity(), nn.Linear(_HIDDEN, _WIDTH)
    feed_forward = nn.Sequential(OrderedDict(net=nn.Sequential(*hidden)))
    return nn.Sequential(Residual(Attention()), Residual(feed_forward))


class ViTTiny(nn.Module):
    """ViT-Tiny: patches of 4x4 pixels and a class token, with learned position embeddings, and nine blocks."""

    def __init__(self, num_classes: int, image_size: int, channels: int) -> None:
        super().__init__()
        self.to_patch_embedding = nn.Sequential(nn.Identity(), nn.Linear(_PATCH * _PATCH * channels, _WIDTH))
        self.cls_token = nn.Parameter(torch.randn(1, 1, _WIDTH))
        self.pos_embedding = nn.Parameter(torch.randn(1, (image_size // _PATCH) ** 2 + 1, _WIDTH))
        self.transformer = nn.Sequential(OrderedDict(layers=nn.Sequential(*(_block() for _ in range(_DEPTH)))))
        self.mlp_head = nn.Sequential(nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, num_classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps images `(batch, channels, height, width)` to logits."""
        batch, channels, height, width = images.shape
        grid = images.view(batch, channels, height // _PATCH, _PATCH, width // _PATCH, _PATCH)
        patches = grid.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, _PATCH * _PATCH * channels)
        x = self.to_patch_embedding(patches)
        x = torch.cat([self.cls_token.expand(batch, -1, -1), x], 1) + self.pos_embedding
        return self.mlp_head(self.transformer(x)[:, 0])


def create(name: str, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Returns the network `resnet18` or `vit_tiny` for images of `image_shape`, `(height, width, channels)`.

    It is initialised with PyTorch's defaults.
    """
    torch.manual_seed(0)
    height, _, channels = image_shape
    return resnet18(num_classes, channels) if name == "resnet18" else ViTTiny(num_classes, height, channels)


LEARNING_RATE, MOMENTUM = 0.1, 0.9

Step = Callable[[], torch.Tensor]
"""A function that makes a step and returns its clean loss."""


def sam(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, radius: float) -> Step:
    """Returns the step of SAM with SGD with momentum as its base optimizer."""
    tx = pytorch_optimizer.SAM(network.parameters(), torch.optim.SGD, rho=radius, lr=LEARNING_RATE, momentum=MOMENTUM)

    def gradient() -> torch.Tensor:
        tx.zero_grad()
        loss = functional.cross_entropy(network(images), labels)
        loss.backward()
        return loss

    def step() -> torch.Tensor:
        loss = gradient()
        tx.step(gradient)
        return loss.detach()

    return step


def gsam(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, radius: float, alpha: float) -> Step:
    """Returns the step of GSAM with SGD with momentum as its base optimizer, at a constant radius."""
    base = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    constant = torch.optim.lr_scheduler.LambdaLR(base, lambda _: 1.0)
    radii = pytorch_optimizer.ProportionScheduler(constant, max_lr=LEARNING_RATE, max_value=radius, min_value=radius)
    tx = pytorch_optimizer.GSAM(network.parameters(), base, network, radii, alpha=alpha)
    tx.set_closure(functional.cross_entropy, images, labels)

    def step() -> torch.Tensor:
        _, loss = tx.step()
        return loss.detach()

    return step
