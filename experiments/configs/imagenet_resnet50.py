"""ImageNet, ResNet-50: a row of the paper's table.

    python -m experiments.reproduce --config imagenet_resnet50

Nine cells of 200 epochs; a seed takes 3.84 thousand million gradients of an image.
"""

from pathlib import Path

from experiments.configs.recipes import CNN
from experiments.configs.row import Row, published
from experiments.studying import Grid

ROW = Row(
    title="ImageNet, ResNet-50",
    study=Grid(
        Path("runs/imagenet_resnet50"),
        dataset="imagenet2012",
        model="resnet50",
        stem="imagenet",
        **CNN,
    ),
    published=published(
        "32.23 / 492.12 | 30.62 / 268.60 | 30.63 / 297.82 | "
        "29.19 / 55.31 | 29.06 / 41.83 | 29.23 / 38.13 | "
        "30.58 / 1504.53 | 29.96 / 853.04 | 29.72 / 670.51"
    ),
)
