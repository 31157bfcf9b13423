"""Draws a batch: `python -m experiments.show_batch --random-erasing 0.25 --mixing 0.5 --output runs/looks`.

The picture has a row for each image and a column for each step of the recipe, from the stored images to the input of
the network.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console

from experiments import data
from experiments.cli.command import Command
from experiments.cli.errors import exit_on_value_error, parse, start
from experiments.cli.output_folder import make_folder
from experiments.config import Config, checks
from experiments.runner import image_pipeline, run
from experiments.training.atomic_write import replacing


class View(NamedTuple):
    """A batch after one step of the recipe.

    Attributes:
      step: the name of the step.
      images: uint8 `(batch, height, width, channels)`.
      targets: labels, `(batch,)`, or distributions over the classes, `(batch, classes)`.
    """

    step: str
    images: np.ndarray
    targets: np.ndarray


def views(config: Config, dataset: data.Dataset, batch: int) -> list[View]:
    """Returns one batch of a run after each step of the recipe, in order. Normalisation is undone.

    Args:
      config: the config of the run.
      dataset: the data of the run.
      batch: the index of the batch, counted from 0.

    Raises:
      ValueError: If the run has no such batch.
    """
    total = config.plan.total_steps(config.recipe.epoch_size(len(dataset.train)))
    if not 0 <= batch < total:
        raise ValueError(f"batch is {batch}: the run has {total}, give an integer from 0 to {total - 1}.")

    passes = config.recipe.passes
    batches_from = partial(data.training_batches, dataset.train, config.plan, config.seed, batch, passes=passes)
    found = next(batches_from())
    shown = [View("as read", found["image"], found["label"])]
    if (transform := image_pipeline.transform_of(config, dataset)) is not None:
        found = next(batches_from(transform=transform))
        shown.append(View("crop, flip, auto_augment", found["image"], found["label"]))
    settings = image_pipeline.preparation_settings(config, dataset)
    constants = image_pipeline.constants_of(config, dataset)
    images = jnp.asarray(found["image"])
    for name, stage in image_pipeline.stages(settings).items():  # as in the compiled step
        images = stage(constants, jnp.asarray(found["position"]), images)
        if name != "normalize":  # it would be undone
            shown.append(View(name, _for_the_eye(images, dataset), found["label"]))
    images, targets, _ = image_pipeline.preparation(settings)(found, constants)
    last = "mixing" if settings.recipe.mixing else "to the network"
    return [*shown, View(last, _for_the_eye(images, dataset), np.asarray(targets))]


def _for_the_eye(images: jax.Array, dataset: data.Dataset) -> np.ndarray:
    if images.dtype == np.uint8:
        return np.asarray(images)
    return np.clip(np.round(np.asarray(images, np.float32) * dataset.std + dataset.mean), 0, 255).astype(np.uint8)


_SIDE = 1.5  # inches
_SMALLEST = 1e-6  # the smallest difference between target probabilities


def draw(views: list[View], rows: int, path: Path) -> None:
    """Draws the first images of a batch, with their targets, as a PNG.

    Args:
      views: the views of one batch.
      rows: the number of images; a smaller batch is drawn completely.
      path: the path of the file.
    """
    rows = min(rows, len(views[0].images))
    brightest = max(int(views[0].images.max()), 1)  # for grey images, which may use few levels
    from matplotlib.figure import Figure  # noqa: PLC0415 - --help does not wait for it

    figure = Figure(figsize=(_SIDE * len(views), (_SIDE + 0.3) * rows + 0.3), layout="constrained")
    columns = figure.subplots(rows, len(views), squeeze=False).T
    for view, panels in zip(views, columns, strict=True):
        for panel, image, target in zip(panels, view.images, view.targets, strict=False):
            shown = image[..., 0] if image.shape[-1] == 2 else image  # Matplotlib draws no images of two channels
            panel.imshow(shown, cmap="gray", vmin=0, vmax=brightest)  # the colour map is ignored for colour images
            panel.set(xticks=[], yticks=[])
            if view is views[0] or view is views[-1]:
                panel.set_xlabel(in_words(target), fontsize=8)
        panels[0].set_title(view.step.replace("_", " "), fontsize=9)
    with replacing(path) as new:
        figure.savefig(new, format="png", dpi=120)


def in_words(target: np.ndarray) -> str:
    """Returns a target as text: a label, or the classes with more than the lowest probability of a distribution.

    Args:
      target: an integer, or a distribution over the classes, `(classes,)`.
    """
    if not target.ndim:
        return f"label {target}"
    base = target.min()
    outstanding = [label for label in np.argsort(-target) if target[label] > base + _SMALLEST]
    words = ", ".join(f"{label}: {100 * target[label]:.0f}%" for label in outstanding)
    return words if base < _SMALLEST else f"{words}\neach other: {100 * base:.2g}%"


@dataclass(frozen=True)
class Arguments:
    """Draw the first images of a batch after each step of the recipe, up to the input of the network.

    Attributes:
      config: The settings of the run that the batch belongs to.
      output: The folder for the picture, batch.png. An existing picture is replaced.
      location: The location of the data.
      batch: The index of the batch in the run, counted from 0.
      images: The number of images to draw.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    output: Path
    location: Annotated[data.Location, tyro.conf.arg(name="")]
    batch: int = 0
    images: int = 8

    def __post_init__(self) -> None:
        checks.check_count("images", self.images)


COMMAND = Command(
    "show_batch",
    Arguments,
    "--random-erasing 0.25 --mixing 0.5 --output runs/looks",
    (
        "output",
        "dataset",
        "batch",
        "images",
        "batch_plan",
        "seed",
        "auto_augment",
        "random_erasing",
        "mixing",
        "label_smoothing",
    ),
    purpose="what to draw",
)


def main() -> None:
    """Parses the command line and draws the batch."""
    arguments = parse(COMMAND)
    config = arguments.config.resolved()
    dataset = exit_on_value_error(run.load, config, arguments.location)
    shown = exit_on_value_error(views, config, dataset, arguments.batch)
    path = exit_on_value_error(make_folder, arguments.output) / "batch.png"
    draw(shown, arguments.images, path)
    Console(soft_wrap=True, markup=False, highlight=False).print(f"batch {arguments.batch} is shown in {path}")


if __name__ == "__main__":
    start(main)
