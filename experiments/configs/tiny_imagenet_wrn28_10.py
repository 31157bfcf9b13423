"""Tiny ImageNet, WRN-28-10: a row of the paper's table.

    python -m experiments.reproduce --config tiny_imagenet_wrn28_10

Nine cells of 200 epochs; a seed takes 300 million gradients of an image.
"""

from pathlib import Path

from experiments.configs.recipes import CNN
from experiments.configs.row import Row, published
from experiments.study import Grid

ROW = Row(
    title="Tiny ImageNet, WRN-28-10",
    study=Grid(
        Path("runs/tiny_imagenet_wrn28_10"),
        dataset="tiny_imagenet",
        model="wide_resnet28_10",
        **CNN,
    ),
    published=published(
        "38.75 / 2550.16 | 38.60 / 917.93 | 38.92 / 926.94 | "
        "36.55 / 176.80 | 35.36 / 128.35 | 35.14 / 119.84 | "
        "39.30 / 3066.71 | 37.86 / 1657.00 | 37.78 / 1803.57"
    ),
)
