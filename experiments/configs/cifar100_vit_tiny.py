"""CIFAR-100, ViT-Tiny: the paper's set-up for vision transformers, of which PAPER.md has no results.

    python -m experiments.reproduce --config cifar100_vit_tiny

Nine cells of 100 epochs of three passes; a seed takes 225 million gradients of an image. With
--shifted-patches --locality-attention the network is the one with both.
"""

from pathlib import Path

from experiments.configs.recipes import VIT
from experiments.configs.row import Row
from experiments.study import Grid

ROW = Row(
    title="CIFAR-100, ViT-Tiny",
    study=Grid(
        Path("runs/cifar100_vit_tiny"),
        dataset="cifar100",
        model="vit_tiny",
        **VIT,
    ),
    published={},
)
