"""The sections of a config: problem, network, recipe and descent of a run, and what the runs of a study share."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any, Self

import jax.numpy as jnp
from tyro.conf import arg

from experiments import data, models
from experiments.config.checks import check_choice, check_count, check_fraction, check_number
from experiments.training.methods import METHODS, OPTIONS
from experiments.training.optimizer import BASES


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Which examples are fitted.

    Attributes:
      dataset: digits (8x8 scans of handwritten digits, embedded), or cifar10, cifar100, fashion_mnist, mnist,
        svhn_cropped, tiny_imagenet or imagenet2012 of TensorFlow Datasets.
      train_examples: How many of the training examples are there for the run, the first ones; left out, all.
      split: Of the digits, whose seed chooses the test images: the split of this seed; left out, of the run's own.
      label_noise: The fraction of the training labels that are wrong, each drawn from the other classes.
      validation: The fraction of the training examples that is held out, and takes the place of the test set.
    """

    dataset: str = "digits"
    train_examples: int | None = None
    split: int | None = None
    label_noise: float = 0.0
    validation: float = 0.0

    def __post_init__(self) -> None:
        check_choice("dataset", self.dataset, data.NAMES)
        check_count("train_examples", self.train_examples)
        if self.split is not None and self.split < 0:
            raise ValueError(f"split is {self.split}: give a seed, an integer of at least 0.")
        for name in ("label_noise", "validation"):
            check_fraction(name, getattr(self, name))

    def num_examples(self, stored: int) -> int:
        """How many examples are trained on, of so many that are stored as training examples."""
        available = stored if self.train_examples is None else min(self.train_examples, stored)
        return available - round(self.validation * available)


PRECISIONS = ("float32", "bfloat16")

_OPTIONS = ("stem", "shifted_patches", "locality_attention", "drop_path")


@dataclass(frozen=True, kw_only=True)
class Network:
    """Which network is trained.

    Attributes:
      model: small_resnet (ResNet-8, 78,000 parameters), resnet18 (11 million), resnet50 (24 million), wide_resnet28_10
        (37 million), vit_tiny (3 million) or vit_small (14 million).
      stem: Of a ResNet: cifar, a 3x3 convolution, or imagenet, a 7x7 convolution and pooling; left out, cifar.
      shifted_patches: Whether a ViT's tokens also see the image shifted by half a patch.
      locality_attention: Whether a ViT's tokens look away from themselves, at a temperature that is learned.
      drop_path: With which probability a ViT leaves out a branch, for each image by itself, while it trains.
      precision: What the network computes in: float32 or bfloat16, half the memory of activations. Parameters, the
        perturbation, norms, statistics, logits and the loss are float32 in any case; a small rho does not survive
        bfloat16, see docs/precision.md.
    """

    model: str = "small_resnet"
    stem: str | None = None
    shifted_patches: bool = False
    locality_attention: bool = False
    drop_path: float = 0.0
    precision: str = "float32"

    def __post_init__(self) -> None:
        check_choice("model", self.model, models.NAMES)
        check_choice("stem", self.stem, models.STEMS)
        check_fraction("drop_path", self.drop_path)
        check_choice("precision", self.precision, PRECISIONS)
        models.check_options(self.model, dict(self.options))

    @property
    def options(self) -> tuple[tuple[str, Any], ...]:
        """What is asked for beside the model's name, as pairs of name and value."""
        asked = tuple((name, value) for name in _OPTIONS if (value := getattr(self, name)))
        return asked if self.precision == "float32" else (*asked, ("dtype", jnp.dtype(self.precision)))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is done to images and labels, beside the shift and the mirror that belong to a data set.

    Attributes:
      auto_augment: Whether images go through AutoAugment's policy for CIFAR.
      random_erasing: With which probability a rectangle of an image is erased.
      mixing: With which probability the images of a batch are mixed with others of it, by mixup or by cutmix.
      label_smoothing: Which part of a label is spread over all classes.
      passes: How often an epoch goes through the training examples.
    """

    auto_augment: bool = False
    random_erasing: float = 0.0
    mixing: float = 0.0
    label_smoothing: float = 0.0
    passes: int = 1

    def __post_init__(self) -> None:
        check_fraction("label_smoothing", self.label_smoothing)
        check_count("passes", self.passes)
        for name in ("random_erasing", "mixing"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}: give a probability, from 0 to 1.")

    def epoch_size(self, num_examples: int) -> int:
        """How many examples an epoch has, of `num_examples` that there are."""
        return self.passes * num_examples


PERTURBATIONS = ("global", "device")
ON_NONFINITE = ("skip", "stop")


@dataclass(frozen=True, kw_only=True)
class Descent:
    """How the parameters descend.

    Attributes:
      rho: The method's radius; left out, that of its paper: 0.05 for most, 0.1 for friendly_sam and look_sam, 0.3 for
        msam, 0.5 for asam, 2.0 for ported_asam.
      alpha: The weight of gsam's surrogate gap, 0.02 left out, or of look_sam's old direction, 0.7.
      rho_min: The radius falls with the learning rate, in proportion to it, from rho to this value, which a rate of 0
        has; left out, the radius is constant.
      gamma: The weight of the sharpness in wsam and wsam_decoupled, at least 0 and below 1; left out, 0.9.
      sigma: The weight of the mean gradient that friendly_sam takes away; left out, 1.
      lam: The share of the past in friendly_sam's mean gradient, 0.9 left out; the share of the normalized ascent in
        unified_sam, 0.5 left out.
      theta: The share of the newest gradient in vasso's mean, from 0 to 1; left out, 0.9.
      eta: What asam adds to the size of each weight; left out, 0.01.
      ascent_steps: The ascent steps of k_step_sam, each of length rho / ascent_steps and with a gradient of its own; by
        default 2.
      m: How many examples share a perturbation, and BatchNorm's statistics; left out, those of a batch. Batches of
        no more than m stay whole.
      perturbation: Where a run has several devices: global, one perturbation for all, or device, one on each, with
        BatchNorm's statistics, for its part of a batch; then the result depends on the number of devices.
      micro_batch: How many examples go through the network at a time, both passes of a step being those of the whole
        batch: a batch larger than memory goes through in parts, and one program serves every stage of the plan.
        BatchNorm's statistics, and mixing, are those of a part.
      optimizer: The base optimizer: sgd or adamw.
      learning_rate: Its initial learning rate.
      warmup_epochs: In how many epochs, within the plan, the rate rises to that, from 1% of it.
      momentum: Of sgd; left out, 0, and 0.9 for msam, which perturbs along it.
      weight_decay: Added to sgd's gradient; apart from the gradient with adamw.
      ema: Evaluate a running average of the parameters, with this weight for the past at each update: 0.999, for
        instance; at 0 the parameters themselves.
      on_nonfinite: What a step does whose loss, gradients or new state are not finite: skip, it changes nothing and is
        counted, or stop, the run ends before it, saved; left out, it is made as any other.
    """

    rho: float | None = None
    alpha: float | None = None
    rho_min: float | None = None
    gamma: float | None = None
    sigma: float | None = None
    lam: float | None = None
    theta: float | None = None
    eta: float | None = None
    ascent_steps: int | None = None
    m: int | None = None
    perturbation: str = "global"
    micro_batch: int | None = None
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    warmup_epochs: float = 0.0
    momentum: float | None = None
    weight_decay: float = 0.0
    ema: float = 0.0
    on_nonfinite: str | None = None

    @property
    def in_shards(self) -> bool:
        """Whether parts of a batch have perturbations of their own."""
        return self.m is not None or self.perturbation == "device"

    def __post_init__(self) -> None:
        check_choice("optimizer", self.optimizer, BASES)
        check_choice("perturbation", self.perturbation, PERTURBATIONS)
        for name in ("rho", "alpha", "rho_min", "learning_rate", "warmup_epochs", "momentum", "weight_decay"):
            check_number(name, getattr(self, name))
        for name in ("ascent_steps", "m", "micro_batch"):
            check_count(name, getattr(self, name))
        check_fraction("ema", self.ema)
        check_choice("on_nonfinite", self.on_nonfinite, ON_NONFINITE)
        if self.momentum is not None and self.momentum >= 1:
            raise ValueError(f"momentum is {self.momentum}: give a number below 1, or no gradient is ever forgotten.")
        if self.optimizer == "adamw" and self.momentum:
            raise ValueError(f"momentum is {self.momentum}: adamw has its own, leave it out.")


@dataclass(frozen=True, kw_only=True)
class BaseConfig:
    """What the runs of a study share.

    The command line and `config.json` have the fields of all sections side by side: these are the settings.

    Attributes:
      problem: Which examples are fitted.
      network: Which network is trained.
      recipe: What is done to images and labels.
      descent: How the parameters descend.
    """

    problem: Annotated[Problem, arg(name="")] = Problem()
    network: Annotated[Network, arg(name="")] = Network()
    recipe: Annotated[Recipe, arg(name="")] = Recipe()
    descent: Annotated[Descent, arg(name="")] = Descent()

    @classmethod
    def from_settings(cls, **settings: Any) -> Self:
        """The config with these settings, given by their names on the command line; others have their defaults."""
        return cls(**_sorted_in(cls, settings, {field.name: field.default for field in fields(cls)}))

    def with_settings(self, **settings: Any) -> Self:
        """This config with other values of some settings, given by their names on the command line."""
        return replace(self, **_sorted_in(type(self), settings, {name: getattr(self, name) for name in SECTIONS}))

    @property
    def settings(self) -> dict[str, Any]:
        """The value of each setting, by its name on the command line."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        inside = {name: value for section in SECTIONS for name, value in asdict(values.pop(section)).items()}
        return inside | values


def check_options(study: BaseConfig, methods: Sequence[str]) -> None:
    """Refuse a number that none of the methods has."""
    for name in OPTIONS:
        value = getattr(study.descent, name)
        if value is not None and all(name not in METHODS[method].options for method in methods):
            raise ValueError(f"{name} is {value}, and {' or '.join(methods)} has no such option: omit it.")


SECTIONS: dict[str, type[Any]] = {"problem": Problem, "network": Network, "recipe": Recipe, "descent": Descent}
"""The sections of a config by their names, in the order of their settings."""


def _sorted_in(cls: type[Any], settings: dict[str, Any], sections: dict[str, Any]) -> dict[str, Any]:
    """The settings, those of a section as that section, made from the one given."""
    rest, made = dict(settings), {}
    for name, section in SECTIONS.items():
        inside = {field.name: rest.pop(field.name) for field in fields(section) if field.name in rest}
        if inside:
            made[name] = replace(sections[name], **inside)
    if unknown := rest.keys() - {field.name for field in fields(cls)}:
        raise TypeError(f"{cls.__name__} has no setting {min(unknown)!r}.")
    return made | rest
