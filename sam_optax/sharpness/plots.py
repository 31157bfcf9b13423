"""Plots of sharpness: landscapes, curves over the radius, and spectral densities.

This module requires the extra `plots`. Import it by its full name, `import sam_optax.sharpness.plots`. The plots are
also legible in greyscale.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from sam_optax import hyperparameters
from sam_optax.sharpness.curves import Curve
from sam_optax.sharpness.landscapes import Landscape
from sam_optax.sharpness.spectrum import SpectralDensity

_FAR_APART = 8  # if the ratio of the losses is larger, the scale is logarithmic
_LEVELS = 19
_DASHES = ("-", "--", ":", "-.", (0, (1, 3)))
_MARKERS = ("o", "s", "^", "v", "D", "x")
_LEGEND_WIDTH = 84  # in characters, for a figure that is seven inches wide
_LOWEST = 1e-7  # the lowest density on the axis, relative to the highest
_LOSS = "loss, mean over the examples"
_STYLE: Any = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "grid.alpha": 0.3,
    "hatch.linewidth": 0.5,
}


def plot_landscape(landscape: Landscape, title: str | None = None) -> Figure:
    """Draws one landscape; see `plot_landscapes`.

    Args:
      landscape: the result of `landscape`.
      title: the title of the plot.

    Returns:
      The figure.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax import sharpness
      >>> from sam_optax.sharpness import plots
      >>> loss_fn, w = lambda w, x: 0.5 * jnp.mean((x @ w) ** 2), jnp.zeros(2)
      >>> found = sharpness.landscape(loss_fn, w, [jnp.eye(2)], [jnp.ones(2)], coordinates=[-1, 0, 1])
      >>> figure = plots.plot_landscape(found, "A parabola")
      >>> figure.savefig("parabola.png")  # doctest: +SKIP
    """
    return plot_landscapes({title or "": landscape})


def plot_landscapes(landscapes: Mapping[str, Landscape]) -> Figure:
    """Draws landscapes for comparison: filled contours side by side, or losses along one direction in one panel.

    Contours have the same levels in all panels. If the losses differ widely, the levels have equal ratios. The position
    of the parameters is marked. Losses that are not finite are not drawn; in contour plots their area is hatched.

    Args:
      landscapes: the landscapes by name. All are along one direction, or all are along two directions with at least two
        points each.

    Returns:
      The figure.

    Raises:
      ValueError: If `landscapes` is empty, if some landscapes have one direction and others have two, or if one with
        two directions has a single coordinate.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax import sharpness
      >>> from sam_optax.sharpness import plots
      >>> loss_fn, batches = lambda w, x: 0.5 * jnp.mean((x @ w) ** 2), [jnp.eye(2)]
      >>> first, second = (
      ...     sharpness.landscape(loss_fn, w, batches, [jnp.ones(2)], coordinates=[-1, 0, 1])
      ...     for w in (jnp.zeros(2), jnp.ones(2))
      ... )
      >>> figure = plots.plot_landscapes({"SGD": first, "SAM": second})
    """
    dimensions = {np.ndim(each.loss) for each in landscapes.values()}
    if dimensions not in ({1}, {2}):
        raise ValueError(f"landscapes have {sorted(dimensions)} directions: give one or more, of one kind, 1 or 2.")
    if dimensions == {2} and any(len(each.coordinates) < 2 for each in landscapes.values()):
        raise ValueError("landscapes has one with a single coordinate: give at least two along each direction.")
    with mpl.rc_context(_STYLE):
        return _draw_lines(landscapes) if dimensions == {1} else _draw_contours(landscapes)


def plot_curve(curves: Mapping[str, Curve] | Curve, marks: Sequence[float] = (0.0002,)) -> Figure:
    """Draws the worst-case sharpness against its radius ρ, and below it the exponent of its growth.

    Both axes of the first panel are logarithmic, so a power of ρ is a straight line; the panel below shows its
    exponent. An exponent of 1 means that the gradient dominates the sharpness, and 2 that the curvature does. A dashed
    line shows the first-order part. A third panel shows the training error at the perturbed parameters, if it is known.
    Sharpness that is not positive is not drawn.

    Args:
      curves: the result of `curve`, or several results by name.
      marks: radii to mark. Each is labelled with the distance `ρ√d` from the centre of an ℓ∞ ball to its corner, if all
        curves have the same `d`. Radii outside the range of the curves are ignored.

    Returns:
      The figure.

    Raises:
      ValueError: If `curves` is empty.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax import sharpness
      >>> from sam_optax.sharpness import plots
      >>> loss_fn = lambda w, x: 0.5 * jnp.mean((x @ w) ** 2)
      >>> found = sharpness.curve(loss_fn, jnp.ones(2), [jnp.eye(2)], rhos=[0.001, 0.01, 0.1])
      >>> figure = plots.plot_curve({"SAM": found})
    """
    named = {"": curves} if isinstance(curves, Curve) else dict(curves)
    if not named:
        raise ValueError("curves is empty: give a curve, or some by their names.")
    ratios = (2.4, 1) if all(each.error is None for each in named.values()) else (2.4, 1, 1)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7, 2.2 + 1.6 * sum(ratios)), layout="constrained")
        panels = figure.subplots(len(ratios), sharex=True, height_ratios=ratios)
        styles = zip(_shades(len(named)), itertools.cycle(_MARKERS), strict=False)
        for (name, each), (color, marker) in zip(named.items(), styles, strict=True):
            _plot_curve(panels, name, each, {"color": color, "marker": marker, "markersize": 4, "linewidth": 1.4})
        _label_curves(panels, named)
        _mark_radii(panels, named, marks)
        handles, labels = panels[0].get_legend_handles_labels()
        columns = max(1, min(4, _LEGEND_WIDTH // (8 + max(map(len, labels)))))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
        return figure


def plot_density(spectral_density: SpectralDensity, width: float, title: str | None = None) -> Figure:
    """Draws the density of the eigenvalues on a logarithmic axis, because outliers are rare.

    Args:
      spectral_density: the result of `spectral_density`.
      width: the standard deviation of the Gaussian that replaces each node, in units of eigenvalues.
      title: the title of the plot.

    Returns:
      The figure.

    Raises:
      ValueError: If `width` is not positive and finite, or if a node of the density is not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax import sharpness
      >>> from sam_optax.sharpness import plots
      >>> loss_fn = lambda w, x: jnp.mean(x) * jnp.sum(jnp.array([1.0, 4.0]) * w**2) / 2
      >>> found = sharpness.spectral_density(loss_fn, jnp.zeros(2), [jnp.ones(3)], steps=2)
      >>> figure = plots.plot_density(found, width=0.1)
    """
    hyperparameters.check_positive_number("width", width)
    nodes = np.ravel(np.asarray(spectral_density.nodes, float))
    if not np.isfinite(nodes).all():
        raise ValueError("spectral_density has nodes that are not finite: give the density of a finite matrix.")
    at = width / 4 * np.unique(np.round(4 * nodes[:, None] / width) + np.arange(-28, 29))  # only around the nodes
    density = np.asarray(spectral_density.density(at, width), float)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7, 4), layout="constrained")
        panel = figure.subplots()
        panel.axvline(0, color="0.5", linewidth=0.8)
        panel.fill_between(at, density, color="0.85")
        panel.plot(at, density, color="black", linewidth=1)
        panel.set(xlabel="eigenvalue", ylabel="density (log scale)", title=title or "", yscale="log")
        panel.set_ylim(_LOWEST * density.max(), 3 * density.max())
        return figure


def _draw_lines(landscapes: Mapping[str, Landscape]) -> Figure:
    figure = Figure(figsize=(6, 4), layout="constrained")
    panel = figure.subplots()
    panel.axvline(0, color="0.5", linewidth=0.8)
    styles = zip(_shades(len(landscapes)), itertools.cycle(_DASHES), strict=False)
    for (name, each), (color, dash) in zip(landscapes.items(), styles, strict=True):
        panel.plot(
            each.coordinates, np.asarray(each.loss, float), color=color, linestyle=dash, linewidth=1.6, label=name
        )
    is_log = _is_wide(*_range(landscapes))
    panel.set(
        xlabel="coordinate along the direction, parameters at 0", ylabel=_LOSS, yscale="log" if is_log else "linear"
    )
    if len(landscapes) == 1:
        panel.set_title(next(iter(landscapes)))
    else:
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def _draw_contours(landscapes: Mapping[str, Landscape]) -> Figure:
    low, high = _range(landscapes)
    is_log = _is_wide(low, high)
    levels = (np.geomspace if is_log else np.linspace)(low, high, _LEVELS)
    levels[[0, -1]] = low, high  # otherwise a rounded end could leave the lowest point unfilled
    norm = (LogNorm if is_log else Normalize)(low, high)
    figure = Figure(figsize=(1.4 + 3.2 * len(landscapes), 3.8), layout="constrained")
    panels = figure.subplots(1, len(landscapes), squeeze=False)[0]
    filled = []
    for panel, (name, each) in zip(panels, landscapes.items(), strict=True):
        x, loss = each.coordinates, np.ma.masked_invalid(np.asarray(each.loss, float))
        filled.append(panel.contourf(x, x, loss.T, levels=levels, norm=norm, cmap="cividis"))
        filled[-1].set(edgecolor="white", linewidth=0.3)  # neighbouring levels are close in grey
        panel.patch.set(facecolor="white", edgecolor="0.5", hatch="///")
        panel.plot(0, 0, "o", color="white", markeredgecolor="black", markersize=5)
        hatched = "\n(hatched: not finite)" if np.ma.is_masked(loss) else ""
        panel.set(xlabel=f"coordinate along direction 1{hatched}", title=name, aspect="equal")
        panel.set(xlim=(x[0], x[-1]), ylim=(x[0], x[-1]))
        panel.grid(visible=False)
    panels[0].set_ylabel("coordinate along direction 2")
    bar = figure.colorbar(filled[0], ax=panels, ticks=levels[::3], format="%.2g", label=_LOSS)
    bar.minorticks_off()
    return figure


def _plot_curve(panels: Any, name: str, curve: Curve, style: dict[str, Any]) -> None:
    """Draws one curve in all panels."""
    panels[0].plot(curve.rho, _positive(curve.sharpness), label=name or "worst-case sharpness", **style)
    panels[0].plot(curve.rho, _positive(curve.first_order), **(style | {"marker": "", "linestyle": "--"}))
    panels[1].plot(curve.rho, curve.slope, **style)
    if curve.error is not None:
        panels[2].plot(curve.rho, 100 * curve.error, **style)


def _label_curves(panels: Any, curves: Mapping[str, Curve]) -> None:
    norms = sorted({each.norm for each in curves.values()})
    balls = " and ".join({"linf": "ℓ∞", "l2": "ℓ2"}[norm] for norm in norms)
    panels[0].plot([], [], "--", color="0.4", label="its first-order part")  # for the legend
    is_shown = any(np.isfinite(_positive(each.sharpness)).any() for each in curves.values())
    panels[0].set(xscale="log", yscale="log" if is_shown else "linear", ylabel="worst-case sharpness")
    panels[1].set(ylabel="slope\nd log S / d log ρ")
    for slope, what in ((1, "gradient"), (2, "curvature")):
        panels[1].axhline(slope, color="0.5", linewidth=0.8)
        panels[1].annotate(what, (1.01, slope), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    if len(panels) == 3:
        panels[2].set(ylabel="perturbed error, %")
    panels[-1].set(xlabel=f"radius ρ of the {balls} ball")
    if root := _root(curves):
        top = panels[0].secondary_xaxis("top", functions=(lambda rho: rho * root, lambda length: length / root))
        top.set_xlabel("ρ√d, the length of the ball's corner")


def _mark_radii(panels: Any, curves: Mapping[str, Curve], marks: Sequence[float]) -> None:
    radii, root = np.concatenate([np.asarray(each.rho, float) for each in curves.values()]), _root(curves)
    for rho in marks:
        if radii.min() <= rho <= radii.max():
            for panel in panels:
                panel.axvline(rho, color="0.4", linewidth=0.8, linestyle=":")
            text = f"ρ = {rho:.3g}" + (f", ρ√d = {rho * root:.3g}" if root else "")
            is_left = rho**2 <= radii.min() * radii.max()  # here the increasing curves leave the top of the panel free
            height, side = (0.98, "top") if is_left else (0.02, "bottom")
            place: Any = {"bbox": {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}}
            place |= {"xycoords": ("data", "axes fraction"), "xytext": (-3, 0), "textcoords": "offset points"}
            panels[0].annotate(text, (rho, height), rotation=90, ha="right", va=side, fontsize=8, **place)


def _root(curves: Mapping[str, Curve]) -> float | None:
    """The root `√d` if all curves are over ℓ∞ balls with the same number of parameters d, else None."""
    balls = {(each.norm, each.num_parameters) for each in curves.values()}
    norm, number = next(iter(balls))
    return math.sqrt(number) if len(balls) == 1 and norm == "linf" else None


def _range(landscapes: Mapping[str, Landscape]) -> tuple[float, float]:
    """The lowest and the highest finite loss of all landscapes, slightly apart if they are equal."""
    losses = np.concatenate([np.ravel(np.asarray(each.loss, float)) for each in landscapes.values()])
    losses = losses[np.isfinite(losses)]
    low, high = (float(losses.min()), float(losses.max())) if losses.size else (0.0, 1.0)
    margin = 1e-3 * (abs(low) or 1) if low == high else 0.0
    return low - margin, high + margin


def _is_wide(low: float, high: float) -> bool:
    return low > 0 and high > _FAR_APART * low


def _positive(values: Any) -> np.ndarray:
    """The values, in which NaN replaces those that are not positive, so that they are not drawn."""
    values = np.asarray(values, float)
    return np.where(values > 0, values, np.nan)


def _shades(number: int) -> np.ndarray:
    """Colours that also differ in lightness."""
    return mpl.colormaps["cividis"](np.linspace(0, 0.85, max(number, 2)))[:number]
