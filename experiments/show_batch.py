"""Show a batch: `python -m experiments.show_batch --random-erasing 0.25 --mixing 0.5 --output runs/looks`.

The picture has a row for each image and a column for each step of the recipe, from the stored images to what the
network sees.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

from experiments import data
from experiments.cli.errors import exit_on_value_error, parse, start
from experiments.cli.output_folder import make_folder
from experiments.config import Config
from experiments.config.checks import check_count
from experiments.runner import image_pipeline, run
from experiments.training.atomic_write import replacing

_NORMALIZE = "normalize"  # it is undone for the eye


class View(NamedTuple):
    """A batch after one step.

    Attributes:
      step: its name.
      images: uint8 `(batch, height, width, channels)`.
      targets: labels, `(batch,)`, or distributions over the classes, `(batch, classes)`.
    """

    step: str
    images: np.ndarray
    targets: np.ndarray


def views(config: Config, dataset: data.Dataset, batch: int) -> list[View]:
    """What each step makes of one batch of a run, in order; normalisation is undone.

    Args:
      config: of the run.
      dataset: its data.
      batch: which one, counted from 0.

    Raises:
      ValueError: If the run has no such batch.
    """
    total = config.plan.total_steps(config.epoch_size(len(dataset.train)))
    if not 0 <= batch < total:
        raise ValueError(f"batch is {batch}: the run has {total}, give an integer from 0 to {total - 1}.")
    read = _batch(config, dataset, batch)
    shown = [View("as read", read["image"], read["label"])]
    if (transform := image_pipeline.transform_of(config, dataset)) is not None:
        read = _batch(config, dataset, batch, transform)
        shown += [View("crop, flip, auto_augment", read["image"], read["label"])]
    return shown + _in_the_step(config, dataset, read)


def _batch(
    config: Config, dataset: data.Dataset, batch: int, transform: image_pipeline.Transform | None = None
) -> dict[str, np.ndarray]:
    stream = data.training_batches(
        dataset.train, config.plan, config.seed, batch, passes=config.passes, transform=transform
    )
    return next(stream)


def _in_the_step(config: Config, dataset: data.Dataset, read: dict[str, np.ndarray]) -> list[View]:
    """What happens inside the compiled step."""
    ours, constants = image_pipeline.recipe_of(config, dataset), image_pipeline.constants_of(config, dataset)
    images, shown = jnp.asarray(read["image"]), []
    for name, stage in image_pipeline.stages(ours).items():
        images = stage(constants, read["position"], images)
        if name != _NORMALIZE:
            shown.append(View(name, _for_the_eye(images, dataset), read["label"]))
    images, targets, _ = image_pipeline.preparation(ours)(read, constants)
    last = "mixing" if ours.mixing else "to the network"
    return [*shown, View(last, _for_the_eye(images, dataset), np.asarray(targets))]


def _for_the_eye(images: jax.Array, dataset: data.Dataset) -> np.ndarray:
    if images.dtype == np.uint8:
        return np.asarray(images)
    return np.clip(np.round(np.asarray(images, np.float32) * dataset.std + dataset.mean), 0, 255).astype(np.uint8)


_SIDE = 1.5  # inches
_SMALLEST = 1e-6  # of what a target differs by


def draw(views: list[View], rows: int, path: Path) -> None:
    """Draw the first images of a batch, with their targets, as a PNG.

    Args:
      views: of one batch.
      rows: how many images, at most; where the batch is smaller, all.
      path: of the file.
    """
    rows = min(rows, len(views[0].images))
    brightest = max(int(views[0].images.max()), 1)  # of grey images, whose levels may be few
    figure = Figure(figsize=(_SIDE * len(views), (_SIDE + 0.3) * rows + 0.3), layout="constrained")
    columns = figure.subplots(rows, len(views), squeeze=False).T
    for view, panels in zip(views, columns, strict=True):
        for panel, image, target in zip(panels, view.images, view.targets, strict=False):
            tells_more = view is views[0] or view is views[-1]
            _draw_image(panel, image, in_words(target) if tells_more else "", brightest)
        panels[0].set_title(view.step.replace("_", " "), fontsize=9)
    with replacing(path) as new:
        figure.savefig(new, format="png", dpi=120)


def in_words(target: np.ndarray) -> str:
    """A target in a few words: a label, or the classes of a distribution that stand out.

    Args:
      target: an integer, or a distribution over the classes, `(classes,)`.
    """
    if not target.ndim:
        return f"label {target}"
    base = target.min()
    outstanding = [label for label in np.argsort(-target) if target[label] > base + _SMALLEST]
    words = ", ".join(f"{label}: {100 * target[label]:.0f}%" for label in outstanding)
    return words if base < _SMALLEST else f"{words}\neach other: {100 * base:.2g}%"


def _draw_image(panel: Axes, image: np.ndarray, text: str, brightest: int) -> None:
    is_grey = image.shape[-1] == 1
    panel.imshow(image[..., 0] if is_grey else image, cmap="gray" if is_grey else None, vmin=0, vmax=brightest)
    panel.set(xticks=[], yticks=[])
    panel.set_xlabel(text, fontsize=8)


@dataclass(frozen=True)
class Arguments:
    """Draw the first images of a batch as the network sees them, step by step of the recipe.

    Attributes:
      config: The run that the batch is of.
      output: The folder for the picture, batch.png: a former one is replaced.
      location: Where the data are.
      batch: Which batch of the run, counted from 0.
      images: How many images are drawn.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    output: Path
    location: Annotated[data.Location, tyro.conf.arg(name="")]
    batch: int = 0
    images: int = 8


def main() -> None:
    """Parse, build, call."""
    arguments = parse(Arguments, "python -m experiments.show_batch")
    exit_on_value_error(check_count, "images", arguments.images)
    dataset = exit_on_value_error(run.load, arguments.config, arguments.location)
    shown = exit_on_value_error(views, arguments.config, dataset, arguments.batch)
    path = exit_on_value_error(make_folder, arguments.output) / "batch.png"
    draw(shown, arguments.images, path)
    Console(soft_wrap=True, markup=False, highlight=False).print(f"batch {arguments.batch}, step by step, is in {path}")


if __name__ == "__main__":
    start(main)
