"""Fashion-MNIST: the paper's cells and the controls of the growing batch, on 5,000 training images, three seeds.

    make data-fashion-mnist
    python -m experiments.reproduce --config fashion_mnist

5.2 million gradients of an image in all. On one of two cores beside other work a run of SGD took 135 to 250 s, of SAM
195 to 340 s.
"""

from pathlib import Path

from experiments.configs.row import Row
from experiments.study import Grid
from experiments.study.grid import CONTROLS, PAPERS

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
