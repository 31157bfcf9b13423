"""The sections of a config: problem, network, recipe and descent of a run, and what the runs of a study share."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any, Self

import jax.numpy as jnp
from tyro.conf import arg

from experiments import models
from experiments.config.checks import check_choice, check_count, check_fraction, check_number
from experiments.config.problem import Problem
from experiments.training.methods import METHODS, MINIMA, OPTIONS
from experiments.training.optimizer import BASES

PRECISIONS = ("float32", "bfloat16")

_OPTIONS = ("stem", "shifted_patches", "locality_attention", "drop_path")


@dataclass(frozen=True, kw_only=True)
class Network:
    """The network that is trained.

    Attributes:
      model: small_resnet (ResNet-8, 78,000 parameters), resnet18 (11 million), resnet50 (24 million), wide_resnet28_10
        (37 million), vit_tiny (3 million) or vit_small (14 million).
      stem: The first layers of a ResNet: cifar, a 3x3 convolution, or imagenet, a 7x7 convolution and pooling. cifar by
        default.
      shifted_patches: Whether the tokens of a ViT also see the image shifted by half a patch.
      locality_attention: Whether the tokens of a ViT ignore themselves in attention, with a learned temperature.
      drop_path: The probability with which a branch of a ViT is skipped during training, drawn for each image.
      precision: The dtype of the network's computation: float32 or bfloat16, which halves the memory of activations.
        Parameters, the perturbation, norms, statistics, logits and the loss are always float32. In
        bfloat16, rounding distorts a small rho: see docs/precision.md.
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
        """The options of the model that are set, as pairs of name and value."""
        options = tuple((name, value) for name in _OPTIONS if (value := getattr(self, name)))
        return options if self.precision == "float32" else (*options, ("dtype", jnp.dtype(self.precision)))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How images and labels are augmented, in addition to the crop and flip of the data set.

    Attributes:
      auto_augment: Whether AutoAugment's policy for CIFAR is applied to the images.
      random_erasing: The probability that a rectangle of an image is erased.
      mixing: The probability that the images of a batch are mixed with each other, by mixup or cutmix.
      label_smoothing: The part of a label that is spread over all classes.
      passes: The number of passes over the training examples in an epoch.
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
        """The number of examples in an epoch, for `num_examples` training examples."""
        return self.passes * num_examples


PERTURBATIONS = ("global", "device")
ON_NONFINITE = ("skip", "stop")


@dataclass(frozen=True, kw_only=True)
class Descent:
    """The method and the base optimizer that update the parameters.

    Attributes:
      rho: The radius of the method. By default the one of its paper: 0.05 for most, 0.1 for friendly_sam, look_sam
        and sam_sps, 0.15 for xsam, 0.3 for msam, 0.5 for asam, 2.0 for ported_asam, 0.01 for bsam, and 0.3 for the
        largest radius of le_sam.
      alpha: The weight of gsam's surrogate gap, 0.02 by default, or of look_sam's reused direction, 0.7 by default, or
        the position of xsam's direction, 1 by default.
      rho_min: Lets the radius follow the learning rate: it falls in proportion from rho to this value at a learning
        rate of 0. The radius is constant by default.
      alpha_min: Lets alpha follow the learning rate in the same way, from alpha to this value.
      gamma: The weight of the sharpness in wsam and wsam_decoupled, at least 0 and below 1. 0.9 by default.
      sigma: The weight of the mean gradient that friendly_sam subtracts, 1 by default, or the increase of the loss in
        le_sam, 0.35 by default.
      lam: The weight of the past in friendly_sam's mean gradient, 0.9 by default, or the weight of the normalized
        ascent in unified_sam, 0.5 by default, and in sam_sps, 1 by default.
      theta: The weight of the newest gradient in vasso's mean, from 0 to 1. 0.9 by default.
      eta: The number that asam adds to the size of each weight. 0.01 by default.
      ascent_steps: The number of ascent steps of k_step_sam, 2 by default, and of xsam, 1 by default. Each has length
        rho / ascent_steps and takes one gradient.
      damping: The number that bsam adds to the gradient's size in its scale. 0.1 by default.
      m: The number of examples that share a perturbation and BatchNorm's statistics. By default the whole batch shares
        them. A batch of at most m examples is not divided.
      perturbation: With several devices: global, one perturbation for the whole batch, or device, one for the part of
        the batch on each device, which also has BatchNorm statistics of its own. The result of device depends on the
        number of devices.
      micro_batch: The number of examples that pass through the network at a time. Both passes of a step still use the
        whole batch, so a batch that exceeds memory is processed in parts, and one compiled program serves every batch
        size. BatchNorm statistics and mixing use the examples of one part.
      compile_once: Whether the whole step is one compiled program for all batch sizes: a batch is padded to the largest
        size of the plan, and the step loops over the parts of micro_batch examples that it uses. For models without
        BatchNorm. On a CPU, the gradient of a convolution is many times slower in such a loop.
      optimizer: The base optimizer: sgd or adamw.
      learning_rate: The initial learning rate; for sam_sps the largest step size.
      warmup_epochs: The number of epochs, counted within the plan, in which the learning rate rises from 1% to
        its initial value.
      momentum: The momentum of sgd. By default 0, and 0.9 for msam, which perturbs along the momentum.
      weight_decay: The weight decay: added to the gradient of sgd, decoupled for adamw. For bsam it
        is the precision of the prior divided by the number of training examples, 2e-4 in its paper.
      ema: Evaluates an exponential moving average of the parameters with this decay, for instance 0.999. At 0 the
        parameters themselves are evaluated.
      on_nonfinite: What happens at a step whose loss, gradients or new state are not finite: skip, it changes nothing
        and is counted, or stop, the run is saved and ends before it. By default the step is made like any other.
    """

    rho: float | None = None
    alpha: float | None = None
    rho_min: float | None = None
    alpha_min: float | None = None
    gamma: float | None = None
    sigma: float | None = None
    lam: float | None = None
    theta: float | None = None
    eta: float | None = None
    ascent_steps: int | None = None
    damping: float | None = None
    m: int | None = None
    perturbation: str = "global"
    micro_batch: int | None = None
    compile_once: bool = False
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
        for name in ("rho", "alpha", *MINIMA.values()):
            check_number(name, getattr(self, name))
        for name in ("learning_rate", "warmup_epochs", "momentum", "weight_decay"):
            check_number(name, getattr(self, name))
        for name in ("ascent_steps", "m", "micro_batch"):
            check_count(name, getattr(self, name))
        check_fraction("ema", self.ema)
        check_choice("on_nonfinite", self.on_nonfinite, ON_NONFINITE)
        if self.momentum is not None and self.momentum >= 1:
            raise ValueError(f"momentum is {self.momentum}: give a number below 1, so that old gradients decay.")
        if self.optimizer == "adamw" and self.momentum:
            raise ValueError(f"momentum is {self.momentum}, and adamw has its own momentum: omit it.")


@dataclass(frozen=True, kw_only=True)
class BaseConfig:
    """The settings that the runs of a study share.

    On the command line and in `config.json` the fields of all sections form one flat list of settings.

    Attributes:
      problem: The data.
      network: The network.
      recipe: The augmentation.
      descent: The method and the base optimizer.
    """

    problem: Annotated[Problem, arg(name="")] = Problem()
    network: Annotated[Network, arg(name="")] = Network()
    recipe: Annotated[Recipe, arg(name="")] = Recipe()
    descent: Annotated[Descent, arg(name="")] = Descent()

    @classmethod
    def from_settings(cls, **settings: Any) -> Self:
        """Makes a config from settings by their names on the command line; the others have their defaults."""
        return cls(**_sorted_in(cls, settings, {field.name: field.default for field in fields(cls)}))

    def with_settings(self, **settings: Any) -> Self:
        """Returns the config with other values of some settings, given by their names on the command line."""
        return replace(self, **_sorted_in(type(self), settings, {name: getattr(self, name) for name in SECTIONS}))

    @property
    def settings(self) -> dict[str, Any]:
        """The value of each setting, by its name on the command line."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        inside = {name: value for section in SECTIONS for name, value in asdict(values.pop(section)).items()}
        return inside | values


def check_options(study: BaseConfig, methods: Sequence[str]) -> None:
    """Refuses an option that none of the methods has."""
    for name in OPTIONS:
        value = getattr(study.descent, name)
        if value is not None and all(name not in METHODS[method].options for method in methods):
            raise ValueError(f"{name} is {value}, and {' or '.join(methods)} has no such option: omit it.")


SECTIONS: dict[str, type[Any]] = {"problem": Problem, "network": Network, "recipe": Recipe, "descent": Descent}
"""The sections of a config by their names, in the order of their settings."""


def _sorted_in(cls: type[Any], settings: dict[str, Any], sections: dict[str, Any]) -> dict[str, Any]:
    """Groups settings into their sections; `sections` are the sections to start from."""
    rest, grouped = dict(settings), {}
    for name, section in SECTIONS.items():
        inside = {field.name: rest.pop(field.name) for field in fields(section) if field.name in rest}
        if inside:
            grouped[name] = replace(sections[name], **inside)
    if unknown := rest.keys() - {field.name for field in fields(cls)}:
        raise TypeError(f"{cls.__name__} has no setting {min(unknown)!r}.")
    return grouped | rest
