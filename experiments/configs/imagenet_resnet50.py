"""ImageNet, ResNet-50: a row of the paper's table.

    python -m experiments.reproduce --config imagenet_resnet50

Nine cells of 200 epochs; a seed takes 3,840 million gradients of an image. What that is in hours of a device, and the
images a second that its input has to bring, is measured on that device, on made-up images, by

    python -m experiments.reproduce --config imagenet_resnet50 --dry-run --seeds 0 --time-steps-of 128

On two processor cores, in batches of 8: 2.9 images a second with SGD, 1.5 with SAM and GSAM, and so 360,000 hours. A
device that makes r gradients of an image a second takes 3.84e9/r seconds, 1,070 hours at r = 1,000, and reads r
images a second with SGD, r/2 with SAM. The pipeline itself, decoding and cropping photographs, brought 460 to 890 a
second on two busy cores.

Of the paper's ImageNet run the result alone is published: the set-up is that of its other convolutional networks.
"""

from pathlib import Path

from experiments.configs.recipes import CNN
from experiments.configs.row import Row, published
from experiments.study import Grid

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
