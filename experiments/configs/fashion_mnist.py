"""Fashion-MNIST: the paper's cells and the controls of the growing batch, on 5,000 training images, three seeds.

    make data-fashion-mnist
    python -m experiments.reproduce --config fashion_mnist

5.2 million gradients of an image in all; on two cores, in batches of 16 to 128, one took 0.7 to 1.1 ms.
"""

from pathlib import Path

from experiments.configs.row import Row
from experiments.studying import Grid
from experiments.studying.strategies import CONTROLS, PAPERS

ROW = Row(
    title="Fashion-MNIST, ResNet-8",
    study=Grid(
        Path("runs/fashion_mnist"),
        dataset="fashion_mnist",
        train_examples=5000,
        strategies=(*PAPERS, *CONTROLS),
        constant_plan="10x128",
        increasing_plan="2x16,2x32,2x64,2x128,2x256",
    ),
    published={},
)
