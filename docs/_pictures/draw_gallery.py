"""Draws the pictures of the gallery: `python docs/_pictures/draw_gallery.py`, in one to three minutes on two cores.

A network of one hidden layer is trained on the digits of scikit-learn with SGD, SAM and GSAM, from the same parameters
and in the same order of the examples. The headline of the study is drawn from its runs, docs/results/digits/runs.csv.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import optax
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from PIL import Image
from scipy import special
from sklearn.datasets import load_digits

import sam_optax
from sam_optax import sharpness
from sam_optax.sharpness import plots

DOCS = Path(__file__).parents[1]
EPOCHS, BATCH_SIZE = 60, 64
REACH = 1.0  # of the landscapes, in units of length
METHODS = {
    "SGD": sam_optax.sam(rho=0.0),  # with a radius of 0, SAM is its base optimizer
    "SAM": sam_optax.sam(rho=0.2),
    "GSAM": sam_optax.gsam(rho=0.2, alpha=0.1),
}
STYLE: Any = {"axes.spines.right": False, "axes.spines.top": False, "font.size": 10, "grid.alpha": 0.3}
COLOURS = ("#00224e", "#7d7c78", "#c9a727")  # they differ in lightness
Params = list[dict[str, jax.Array]]
Batch = tuple[np.ndarray, np.ndarray]


def digits() -> tuple[Batch, Batch]:
    """Returns 1,024 training images with labels, and 773 test images."""
    found: Any = load_digits()
    images, labels = np.float32(found.images.reshape(-1, 64) / 16 - 0.3), np.int32(found.target)
    order = np.random.default_rng(0).permutation(len(labels))
    train, test = ((images[rows], labels[rows]) for rows in (order[:1024], order[1024:]))
    return train, test


def initial(key: jax.Array, sizes: Sequence[int] = (64, 64, 10)) -> Params:
    """Returns random weights for layers of the given sizes."""
    pairs = zip(jax.random.split(key, len(sizes) - 1), sizes[:-1], sizes[1:], strict=True)
    return [{"w": jax.random.normal(k, (n, m)) * (2 / n) ** 0.5, "b": jnp.zeros(m)} for k, n, m in pairs]


def predict(params: Params, images: Any) -> jax.Array:
    """Returns the logits."""
    hidden = jax.nn.relu(images @ params[0]["w"] + params[0]["b"])
    return hidden @ params[1]["w"] + params[1]["b"]


def loss_fn(params: Params, batch: Any) -> jax.Array:
    """Returns the mean cross-entropy."""
    images, labels = batch
    return optax.softmax_cross_entropy_with_integer_labels(predict(params, images), labels).mean()


def fit(method: Any, train: Batch) -> Params:
    """Trains the network for `EPOCHS` epochs with a constant batch size and learning rate."""
    tx = optax.chain(method, optax.sgd(0.1, momentum=0.9))
    value_and_grad = sam_optax.value_and_grad(loss_fn)

    @jax.jit
    def step(params: Params, opt_state: Any, batch: Any) -> Any:
        _, grads, grad_fn = value_and_grad(params, batch)
        updates, opt_state = tx.update(grads, opt_state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), opt_state

    params = initial(jax.random.key(0))
    opt_state, order = tx.init(params), np.random.default_rng(0)
    for _ in range(EPOCHS):
        for rows in order.permutation(len(train[1])).reshape(-1, BATCH_SIZE):
            params, opt_state = step(params, opt_state, (train[0][rows], train[1][rows]))
    return params


def save(figure: Figure, name: str) -> None:
    """Writes a figure into `docs/pictures`, with few colours so that the file is small."""
    pixels = io.BytesIO()
    figure.savefig(pixels, format="png", dpi=110)
    few = Image.open(pixels).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    few.save(DOCS / "pictures" / f"{name}.png", optimize=True)
    print(f"docs/pictures/{name}.png")


def landscapes(minima: Mapping[str, Params], batches: Sequence[Batch]) -> dict[str, sharpness.Landscape]:
    """Returns the loss in the plane of the two sharpest directions of each minimum, in units of length."""
    planes = {}
    for name, params in minima.items():
        pairs = sharpness.eigenpairs(loss_fn, params, batches, 2)
        print(f"{name}: two largest eigenvalues {np.asarray(pairs.values)}")
        at = np.linspace(-REACH, REACH, 41)
        planes[name] = sharpness.landscape(loss_fn, params, batches, pairs.vectors, coordinates=at)
    return planes


def surfaces(planes: Mapping[str, sharpness.Landscape]) -> Figure:
    """Draws landscapes as surfaces over the plane, with the same axes and colours."""
    highest = max(float(plane.loss.max()) for plane in planes.values())
    lowest = min(float(plane.loss.min()) for plane in planes.values())
    figure = Figure(figsize=(8, 3.6))
    for number, (name, plane) in enumerate(planes.items()):
        panel: Any = figure.add_subplot(1, len(planes), number + 1, projection="3d")
        a, b = np.meshgrid(plane.coordinates, plane.coordinates, indexing="ij")
        loss = np.asarray(plane.loss)
        colours = mpl.colormaps["cividis"](LogNorm(max(lowest, 1e-3), highest)(np.maximum(loss, 1e-3)))
        panel.plot_surface(a, b, loss, facecolors=colours, rstride=1, cstride=1, linewidth=0, shade=False)
        panel.set(zlim=(0, highest), title=name, zlabel="loss")
        panel.set(
            xlabel="sharpest direction", ylabel="second sharpest", xticks=[-REACH, 0, REACH], yticks=[-REACH, 0, REACH]
        )
        panel.view_init(elev=24, azim=-58)
    figure.subplots_adjust(left=0.0, right=0.95, top=0.92, bottom=0.06, wspace=0.05)
    return figure


def densities(minima: Mapping[str, Params], batches: Sequence[Batch]) -> Figure:
    """Draws the density of the Hessian's eigenvalues at each minimum."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    with mpl.rc_context(STYLE):
        panel = figure.subplots()
        for (name, params), colour in zip(minima.items(), COLOURS, strict=True):
            found = sharpness.spectral_density(loss_fn, params, batches, steps=40, samples=5, key=jax.random.key(3))
            width = 0.004
            at = np.arange(-0.03, float(np.max(found.nodes)) + 0.03, width / 4)
            panel.plot(at, np.asarray(found.density(at, width)), label=name, color=colour)
            print(f"{name}: largest node {float(np.max(found.nodes)):.3f}")
        panel.set(xlabel="eigenvalue of the Hessian", ylabel="density (log scale)", yscale="log", ylim=(1e-3, 300))
        panel.grid()
        panel.legend(frameon=False)
    return figure


def batch_sizes(train: Batch, epochs: int = 40, first: int = 16, part: int = 8) -> Figure:
    """Trains with a batch size that follows the gradient noise, and draws both over the epochs."""
    tx = optax.chain(
        sam_optax.track_noise(sam_optax.gsam(rho=0.05, alpha=0.02), decay=0.95), optax.sgd(0.05, momentum=0.9)
    )

    @partial(jax.jit, static_argnames="parts")
    def step(params: Params, opt_state: Any, batch: Any, parts: int) -> Any:
        value_and_grad = sam_optax.value_and_grad(loss_fn, micro_batches=parts, measure_noise=True)
        _, grads, grad_fn = value_and_grad(params, batch)
        updates, opt_state = tx.update(grads, opt_state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), opt_state

    controller = sam_optax.AdaptiveBatchPlan(first, maximum=512, rule=sam_optax.noise_scale_rule())
    params, state, order = initial(jax.random.key(0)), controller.start(), np.random.default_rng(0)
    opt_state, scales, sizes = tx.init(params), [], []
    for _ in range(epochs):
        for rows in order.permutation(len(train[1])).reshape(-1, state.batch_size):
            params, opt_state = step(params, opt_state, (train[0][rows], train[1][rows]), state.batch_size // part)
        noise = sam_optax.measured_noise(opt_state).perturbed
        scales.append(float(noise.scale))
        sizes.append(state.batch_size)
        state = controller.after_epoch(state, noise)
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    with mpl.rc_context(STYLE):
        panel = figure.subplots()
        panel.plot(np.arange(1, epochs + 1), scales, color=COLOURS[2], marker="o", markersize=3, label="noise scale")
        panel.step(np.arange(epochs + 1), [*sizes, sizes[-1]], where="post", color=COLOURS[0], label="batch size")
        panel.set(xlabel="epoch", ylabel="examples (log scale)", yscale="log")
        panel.grid()
        panel.legend(frameon=False)
    return figure


def headline(runs: Path, seeds: int = 10) -> Figure:
    """Draws the study's paired differences in test error, with 95% t intervals over the seeds."""
    growth, constant, small = ("5x16,5x32,5x64,5x128,5x256", "constant"), ("25x128", "constant"), ("25x16", "constant")
    contrasts = {
        "growing batch − constant 128": (growth, constant),
        "growing batch − constant 16": (growth, small),
        "cosine rate − constant rate, at 128": (("25x128", "cosine"), constant),
    }
    errors: dict[tuple[str, str, str], dict[int, float]] = {}
    with runs.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row.get("rho_min"):  # a radius that falls during the run
                continue
            key = row["method"], row["batch_plan"], row["lr_schedule"]
            errors.setdefault(key, {})[int(row["seed"])] = 100 * float(row["test_error"])
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    with mpl.rc_context(STYLE):
        panel = figure.subplots()
        for place, (cell, control) in enumerate(contrasts.values()):
            for number, (method, colour) in enumerate(zip(("sgd", "sam", "gsam"), COLOURS, strict=True)):
                paired = [errors[method, *cell][seed] - errors[method, *control][seed] for seed in range(seeds)]
                half = special.stdtrit(seeds - 1, 0.975) * np.std(paired, ddof=1) / seeds**0.5
                at = -place - 0.2 * (number - 1)
                label = method.upper() if place == 0 else None
                panel.errorbar(np.mean(paired), at, xerr=half, fmt="os^"[2 * number % 3], color=colour, label=label)
        panel.axvline(0, color="0.5", linewidth=0.8)
        panel.set(yticks=[0, -1, -2], yticklabels=list(contrasts), xlabel="difference in test error, points")
        panel.legend(frameon=False, loc="lower left")
    return figure


def main() -> None:
    """Trains the networks and draws all pictures."""
    train, test = digits()
    minima = {name: fit(method, train) for name, method in METHODS.items()}
    batches = [(train[0][i : i + 128], train[1][i : i + 128]) for i in range(0, 1024, 128)]
    for name, params in minima.items():
        wrong = float((predict(params, test[0]).argmax(1) != test[1]).mean())
        rise = float(sharpness.worst_case(loss_fn, params, batches, rho=0.003).sharpness)
        print(
            f"{name}: training loss {float(loss_fn(params, train)):.2e}, test error {100 * wrong:.2f}%, rise {rise:.3f}"
        )
    planes = landscapes(minima, batches)
    save(surfaces({name: planes[name] for name in ("SGD", "GSAM")}), "landscapes")
    save(plots.plot_landscapes(planes), "landscape_contours")
    radii = np.geomspace(1e-5, 3e-2, 8)
    curves = {name: sharpness.curve(loss_fn, params, batches, rhos=radii) for name, params in minima.items()}
    save(plots.plot_curve(curves), "radius_curve")
    save(densities(minima, batches), "spectral_density")
    save(batch_sizes(train), "noise_scale")
    save(headline(DOCS / "results" / "digits" / "runs.csv"), "headline")


if __name__ == "__main__":
    main()
