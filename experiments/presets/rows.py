"""The table of predefined studies: `python -m experiments.reproduce --config NAME` runs the study NAME.

Most studies are rows of the paper's tables: nine cells of 200 epochs each. One seed takes 150 million per-image
gradients on CIFAR, 300 million on Tiny ImageNet and 3,840 million on ImageNet. The ViT rows use the paper's set-up for
vision transformers, for which PAPER.md has no results: nine cells of 100 epochs of three passes each, 225 million
per-image gradients per seed. The options --shifted-patches --locality-attention add both modules to the network.

- `digits`: the paper's cells, every control of its growing batch, every match, ten seeds; the late switch at equal
  epochs and updates, and the falling radius at equal epochs. It takes about an hour on two cores, as two parts that run
  at the same time: --part 1/2 and --part 2/2, and then python -m experiments.report. Its results are in
  docs/results/digits.
- `digits_first_version`: the growing plan of the paper's first version, from 8 to 128, on the digits, for SGD and GSAM
  with ten seeds: against constant batches of 128, which is also its last size, of its first and of its mean size, and
  reversed. The constant batches of 8 and 128 are run at equal updates, too; that of the mean size has as many updates
  at equal epochs. The cells constant and cosine are also cells of `digits`: with the same file for --finished they are
  not run again.
- `fashion_mnist`, after `make data-fashion-mnist`: the paper's cells and the controls of the growing batch, on 5,000
  training images, with three seeds: 5.2 million per-image gradients in total. On one of two busy cores a run of SGD
  took 135 to 250 s, and a run of SAM 195 to 340 s.
- `cifar100_resnet18`: the nine cells of the paper, and for SGD and SAM two controls of the growing batch: a constant
  batch of 16, and one of 128 with as many updates. The controls take another 120 million per-image gradients
  per seed. The cells are run in the order of their importance, and `--epochs 30` makes the row shorter, so that a
  study that ends early answers the first questions: docs/study.md.
- `cifar100_resnet8`, after `make data-cifar100`: the nine cells of the paper on CIFAR-100, scaled down to a network and
  a length that two processor cores can train, with the controls of the growing batch. It takes 9.7 million per-image
  gradients per seed. Its results are in docs/results/cifar100_resnet8.
- `imagenet_resnet50`: the paper publishes only the results of its ImageNet runs. The set-up is that of its other
  convolutional networks. This command measures the time on your device, with random images:

      python -m experiments.reproduce --config imagenet_resnet50 --dry-run --seeds 0 --time-steps-of 128

  Two processor cores, in batches of 8, process 2.9 images per second with SGD and 1.5 with SAM and GSAM, which makes
  360,000 hours. A device that computes r per-image gradients per second takes 3.84e9/r seconds, or 1,070 hours at
  r = 1,000; it reads r images per second with SGD and r/2 with SAM. The input pipeline, which decodes and crops
  photographs, delivered 460 to 890 images per second on two busy cores.
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from experiments.config import check_choice
from experiments.config.sections import Descent, Network, Problem, Recipe
from experiments.study import Grid
from experiments.study.selection import MATCHES
from experiments.study.strategies import CONTROLS, FALLING_RADIUS, LATE_SWITCH, PAPERS, PLANNED, TUNED


class Published(NamedTuple):
    """The paper's results for a cell.

    Attributes:
      error: the test error, in %.
      sharpness: the worst-case sharpness at ρ = 0.0002.
      row: the title of the paper's row, for example `CIFAR-100, ResNet-18`.
    """

    error: float
    sharpness: float
    row: str

    def __str__(self) -> str:
        """Returns the figures as in a table: `26.39 / 46.23`."""
        return f"{self.error:.2f} / {self.sharpness:.4g}"


class Row(NamedTuple):
    """A study, with its published results.

    Attributes:
      title: the title of the row in the paper's table.
      study: the study.
      published: the paper's results by method and strategy; empty if the paper has no such row. A study that is a
        scaled-down version of a row has the results of that row.
    """

    title: str
    study: Grid
    published: dict[tuple[str, str], Published]


def load(name: str) -> Row:
    """Returns the row with the given name.

    Raises:
      ValueError: If the name is not in `NAMES`.
    """
    check_choice("config", name, NAMES)
    title, study = _STUDIES[name]
    papers = _SCALED_DOWN_FROM.get(name, name)
    if papers not in _PUBLISHED:
        return Row(title, study, {})
    papers_title, _ = _STUDIES[papers]
    cells = [cell.split("/") for cell in _PUBLISHED[papers].split("|")]
    figures = [Published(float(error), float(sharpness), papers_title) for error, sharpness in cells]
    return Row(title, study, dict(zip(_CELLS, figures, strict=True)))


def _cnn(name: str, dataset: str, model: str, stem: str | None = None) -> Grid:
    """Returns a study with SGD at learning rate 0.1, without momentum and weight decay, over 200 epochs.

    Random cropping and flipping are part of the data sets.
    """
    return Grid(
        Path("runs") / name,
        problem=Problem(dataset=dataset),
        network=Network(model=model, stem=stem),
        descent=Descent(rho=0.05, alpha=0.02, optimizer="sgd", learning_rate=0.1),
        constant_plan="200x128",
        increasing_plan="40x16,40x32,40x64,40x128,40x256",
    )


def _vit(name: str, model: str) -> Grid:
    """Returns a study with AdamW and warm-up over 100 epochs of three passes.

    Augmentation, label smoothing, weight decay and stochastic depth reduce the overfitting of a transformer.
    """
    return Grid(
        Path("runs") / name,
        problem=Problem(dataset="cifar100"),
        network=Network(model=model, drop_path=0.1),
        recipe=Recipe(auto_augment=True, random_erasing=0.25, mixing=0.5, label_smoothing=0.1, passes=3),
        descent=Descent(rho=0.6, alpha=0.1, optimizer="adamw", learning_rate=1e-3, warmup_epochs=10, weight_decay=0.05),
        constant_plan="100x128",
        increasing_plan="25x64,25x128,25x256,25x512",
    )


_BY_IMPORTANCE = (
    *(f"{method}-{strategy}" for strategy in ("constant", "increasing", "constant_first") for method in ("sgd", "sam")),
    *("sgd-constant-equal_updates", "sam-constant-equal_updates", "sgd-cosine", "sam-cosine"),
    *("gsam-constant", "gsam-increasing", "gsam-cosine"),
)
_CELLS_OF_RESNET8 = (
    *("*-constant", "*-increasing", "*-cosine"),
    *(f"{method}-{control}" for control in ("constant_first", "constant_tuned") for method in ("sgd", "sam")),
    *("sgd-constant-equal_updates", "sam-constant-equal_updates", "sgd-constant_mean", "sgd-reversed"),
)

_LATE_AND_FALLING = ("*-late_switch", "*-late_switch-equal_updates", "*-cosine_radius", "*-linear_radius")

_STUDIES = {
    "cifar100_resnet8": (
        "CIFAR-100, ResNet-8",
        replace(
            _cnn("cifar100_resnet8", "cifar100", "small_resnet"),
            problem=Problem(dataset="cifar100", train_examples=10_000),
            strategies=(*PAPERS, "constant_first", TUNED, "constant_mean", "reversed"),
            match=("epochs", "updates"),
            constant_plan="30x128",
            increasing_plan="6x16,6x32,6x64,6x128,6x256",
            # Chosen among 0.1, 0.2, 0.4 and 0.8 by the error on 2,000 held-out training images: docs/results.
            tuned_rates=(("sgd", 0.8), ("sam", 0.4)),
            include=_CELLS_OF_RESNET8,
        ),
    ),
    "cifar100_resnet18": (
        "CIFAR-100, ResNet-18",
        replace(
            _cnn("cifar100_resnet18", "cifar100", "resnet18"),
            strategies=(*PAPERS, "constant_first"),
            match=("epochs", "updates"),
            include=_BY_IMPORTANCE,
        ),
    ),
    "cifar100_vit_small": ("CIFAR-100, ViT-Small", _vit("cifar100_vit_small", "vit_small")),
    "cifar100_vit_tiny": ("CIFAR-100, ViT-Tiny", _vit("cifar100_vit_tiny", "vit_tiny")),
    "cifar100_wrn28_10": ("CIFAR-100, WRN-28-10", _cnn("cifar100_wrn28_10", "cifar100", "wide_resnet28_10")),
    "cifar10_resnet18": ("CIFAR-10, ResNet-18", _cnn("cifar10_resnet18", "cifar10", "resnet18")),
    "cifar10_wrn28_10": ("CIFAR-10, WRN-28-10", _cnn("cifar10_wrn28_10", "cifar10", "wide_resnet28_10")),
    "digits": (
        "Digits, ResNet-8",
        Grid(
            Path("runs/digits"),
            seeds=tuple(range(10)),
            strategies=(*PLANNED, LATE_SWITCH, *FALLING_RADIUS),
            match=MATCHES,
            include=(*(f"*-{name}{match}" for name in PLANNED for match in ("", "-equal_*")), *_LATE_AND_FALLING),
        ),
    ),
    "digits_first_version": (
        "Digits, ResNet-8, the plan of the paper's first version",
        Grid(
            Path("runs/digits_first_version"),
            seeds=tuple(range(10)),
            methods=("sgd", "gsam"),
            strategies=(*PAPERS, "constant_first", "constant_mean", "reversed"),
            match=("epochs", "updates"),
            increasing_plan="5x8,5x16,5x32,5x64,5x128",
            include=(*(f"*-{name}" for name in (*PAPERS, "constant_*", "reversed")), "*-constant-equal_updates"),
        ),
    ),
    "fashion_mnist": (
        "Fashion-MNIST, ResNet-8",
        Grid(
            Path("runs/fashion_mnist"),
            problem=Problem(dataset="fashion_mnist", train_examples=5000),
            strategies=(*PAPERS, *CONTROLS),
            constant_plan="10x128",
            increasing_plan="2x16,2x32,2x64,2x128,2x256",
        ),
    ),
    "imagenet_resnet50": (
        "ImageNet, ResNet-50",
        _cnn("imagenet_resnet50", "imagenet2012", "resnet50", stem="imagenet"),
    ),
    "tiny_imagenet_resnet18": ("Tiny ImageNet, ResNet-18", _cnn("tiny_imagenet_resnet18", "tiny_imagenet", "resnet18")),
    "tiny_imagenet_wrn28_10": (
        "Tiny ImageNet, WRN-28-10",
        _cnn("tiny_imagenet_wrn28_10", "tiny_imagenet", "wide_resnet28_10"),
    ),
}

NAMES = tuple(_STUDIES)

# Studies that are scaled-down versions of a row of the paper, and that row.
_SCALED_DOWN_FROM = {"cifar100_resnet8": "cifar100_resnet18"}

_CELLS = tuple((method, strategy) for strategy in PAPERS for method in ("sgd", "sam", "gsam"))
# The paper's error / sharpness of the nine cells of a row, one line per strategy, in the order of `_CELLS`.
_PUBLISHED = {
    "cifar100_resnet18": (
        "26.61 / 154.27 | 26.39 / 46.23 | 26.61 / 47.55 | "
        "25.58 / 1.33 | 25.10 / 0.94 | 25.18 / 0.90 | "
        "26.63 / 155.88 | 25.87 / 72.70 | 26.12 / 71.86"
    ),
    "cifar100_wrn28_10": (
        "25.62 / 1113.26 | 24.78 / 456.17 | 24.94 / 435.17 | "
        "22.65 / 22.72 | 21.10 / 10.99 | 21.50 / 12.37 | "
        "25.57 / 1148.09 | 24.16 / 687.44 | 24.00 / 665.13"
    ),
    "cifar10_resnet18": (
        "7.17 / 106.46 | 6.34 / 51.82 | 6.21 / 48.39 | "
        "6.39 / 8.73 | 6.03 / 4.27 | 6.06 / 4.08 | "
        "6.63 / 141.37 | 6.08 / 88.53 | 6.20 / 89.30"
    ),
    "cifar10_wrn28_10": (
        "7.04 / 1124.45 | 6.13 / 546.93 | 5.98 / 543.27 | "
        "5.53 / 48.25 | 5.10 / 38.79 | 5.05 / 40.28 | "
        "6.67 / 1467.67 | 5.87 / 771.79 | 5.92 / 794.45"
    ),
    "imagenet_resnet50": (
        "32.23 / 492.12 | 30.62 / 268.60 | 30.63 / 297.82 | "
        "29.19 / 55.31 | 29.06 / 41.83 | 29.23 / 38.13 | "
        "30.58 / 1504.53 | 29.96 / 853.04 | 29.72 / 670.51"
    ),
    "tiny_imagenet_resnet18": (
        "39.62 / 279.07 | 40.28 / 97.52 | 40.13 / 97.23 | "
        "39.36 / 13.33 | 38.40 / 10.65 | 38.25 / 10.31 | "
        "39.84 / 333.73 | 39.07 / 183.59 | 39.05 / 192.29"
    ),
    "tiny_imagenet_wrn28_10": (
        "38.75 / 2550.16 | 38.60 / 917.93 | 38.92 / 926.94 | "
        "36.55 / 176.80 | 35.36 / 128.35 | 35.14 / 119.84 | "
        "39.30 / 3066.71 | 37.86 / 1657.00 | 37.78 / 1803.57"
    ),
}
