"""The pictures: the contents, labels and scales of their panels."""

import io
import subprocess
import sys

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest

from sam_optax.sharpness import plots
from sam_optax.sharpness.curves import Curve
from sam_optax.sharpness.landscapes import Landscape
from sam_optax.sharpness.spectrum import SpectralDensity

POINTS = np.linspace(-1, 1, 5)
RHO = np.array([1e-4, 1e-3, 1e-2])


def plane(factor=1.0, power=1):
    """A landscape that rises only along the first direction."""
    return Landscape(POINTS, jnp.asarray(np.repeat(factor * 10 ** (power * (POINTS + 1))[:, None], 5, axis=1)))


def line(factor=1.0):
    return Landscape(POINTS, jnp.asarray(factor * (1 + POINTS**2)))


def curve(*, sharpness=(1e-4, 1e-2, 1.0), error=None, number=400, norm="linf"):
    slope = np.array([1.5, 2.0, np.nan])
    return Curve(RHO, np.asarray(sharpness), 0.5 * RHO, slope, error, 0.1, number, norm)


def written(figure):
    """All texts of the picture, after it has been drawn."""
    stored = io.BytesIO()
    figure.savefig(stored, format="png", dpi=40)
    assert np.isfinite([[panel.get_xlim(), panel.get_ylim()] for panel in figure.axes]).all()
    return [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_visible() and text.get_text()]


def contours(figure):
    """The filled contours, panel by panel."""
    found = [[x for x in panel.collections if isinstance(x, mpl.contour.QuadContourSet)] for panel in figure.axes]
    return [x for of_panel in found for x in of_panel]


def test_landscapes_of_two_directions_are_side_by_side_with_shared_levels_and_one_colour_bar():
    figure = plots.plot_landscapes({"SGD": plane(), "SAM": plane(0.1)})
    one, other = contours(figure)
    np.testing.assert_array_equal(one.levels, other.levels)
    np.testing.assert_allclose([one.levels[0], one.levels[-1]], [0.1, 100], rtol=1e-6)
    assert one.norm.vmin == other.norm.vmin
    assert one.norm.vmax == other.norm.vmax
    assert len(figure.axes) == 3
    assert [panel.get_title() for panel in figure.axes[:2]] == ["SGD", "SAM"]
    assert [panel.get_xlabel() for panel in figure.axes[:2]] == ["coordinate along direction 1"] * 2
    assert figure.axes[0].get_ylabel() == "coordinate along direction 2"
    assert figure.axes[2].get_ylabel() == "loss, mean over the examples"
    assert all(panel.get_aspect() == 1 for panel in figure.axes[:2])
    assert not any("finite" in text for text in written(figure))


def test_levels_have_equal_ratios_where_the_losses_are_far_apart_and_equal_steps_elsewhere():
    (wide,), (narrow,) = (contours(plots.plot_landscape(plane(power=p))) for p in (1, 0.1))
    np.testing.assert_allclose(np.diff(np.log(wide.levels)), np.log(100) / 18, rtol=1e-5)
    np.testing.assert_allclose(np.diff(narrow.levels), np.ptp(narrow.levels) / 18, rtol=1e-5)
    (negative,) = contours(plots.plot_landscape(plane(-1.0)))
    np.testing.assert_allclose(np.diff(negative.levels), 99 / 18, rtol=1e-5)


def test_the_first_direction_goes_to_the_right_and_the_parameters_are_marked():
    figure = plots.plot_landscape(plane(), "SGD")
    heights = [path.vertices for path in contours(figure)[0].get_paths() if len(path.vertices)]
    assert heights[0][:, 0].max() < 0 < heights[-1][:, 0].min()
    assert [tuple(np.ravel(each.get_data())) for each in figure.axes[0].lines] == [(0, 0)]
    assert figure.axes[0].get_xlim() == figure.axes[0].get_ylim() == (-1, 1)


def test_landscapes_of_one_direction_share_a_panel_with_distinct_line_styles():
    figure = plots.plot_landscapes({"SGD": line(2), "SAM": line(1)})
    (panel,) = figure.axes
    drawn = [each for each in panel.lines if not each.get_label().startswith("_")]
    assert len({each.get_linestyle() for each in drawn}) == 2
    np.testing.assert_allclose(drawn[0].get_ydata(), 2 * (1 + POINTS**2))
    assert panel.get_yscale() == "linear"
    assert plots.plot_landscapes({"SGD": line(20), "SAM": line(1)}).axes[0].get_yscale() == "log"
    texts = written(figure)
    assert {"SGD", "SAM", "coordinate along the direction, parameters at 0", "loss, mean over the examples"} <= {*texts}
    assert plots.plot_landscape(line(), "One").axes[0].get_title() == "One"


@pytest.mark.parametrize(
    "bad", [np.nan, pytest.param(np.inf, marks=pytest.mark.long), pytest.param(-np.inf, marks=pytest.mark.long)]
)
def test_nonfinite_losses_are_omitted(bad):
    holed = plane().loss.at[0, 0].set(bad)
    figure = plots.plot_landscapes({"holed": Landscape(POINTS, holed), "whole": plane(2.0)})
    np.testing.assert_allclose(contours(figure)[0].levels[[0, -1]], [1, 200], rtol=1e-6)
    assert sum("hatched: not finite" in text for text in written(figure)) == 1
    written(plots.plot_landscape(Landscape(POINTS, jnp.full((5, 5), bad))))
    written(plots.plot_landscape(Landscape(POINTS, line().loss.at[1].set(bad))))
    written(plots.plot_landscape(Landscape(POINTS, jnp.full(5, bad))))


@pytest.mark.parametrize("level", [0.0, 1.0, 1e6])
def test_a_flat_landscape_is_drawn(level):
    written(plots.plot_landscape(Landscape(POINTS, jnp.full((5, 5), level))))


def test_a_curve_has_its_first_order_part_its_slope_and_its_error():
    figure = plots.plot_curve(curve(error=np.array([0.0, 0.1, 0.5])))
    top, slope, error = figure.axes
    assert [panel.get_xscale() for panel in figure.axes] == ["log"] * 3
    assert top.get_yscale() == "log"
    solid, dashed = top.lines[:2]
    np.testing.assert_array_equal(solid.get_xydata(), np.stack([RHO, [1e-4, 1e-2, 1.0]], axis=1))
    np.testing.assert_array_equal(dashed.get_ydata(), 0.5 * RHO)
    assert (solid.get_linestyle(), dashed.get_linestyle()) == ("-", "--")
    np.testing.assert_array_equal(solid.get_color(), dashed.get_color())
    np.testing.assert_array_equal(slope.lines[0].get_ydata(), [1.5, 2, np.nan])
    np.testing.assert_array_equal([each.get_ydata()[0] for each in slope.lines[1:3]], [1, 2])
    np.testing.assert_array_equal(error.lines[0].get_ydata(), [0, 10, 50])
    expected = {"worst-case sharpness", "slope\nd log S / d log ρ", "perturbed error, %", "radius ρ of the ℓ∞ ball"}
    assert expected | {"gradient", "curvature", "its first-order part"} <= {*written(figure)}


def test_without_an_error_there_are_two_panels():
    assert len(plots.plot_curve(curve()).axes) == 2
    assert len(plots.plot_curve({"SGD": curve(), "SAM": curve(error=np.zeros(3))}).axes) == 3


def test_marks_are_labelled_with_the_radius_and_the_distance_of_the_corner():
    figure = plots.plot_curve({"SGD": curve(), "SAM": curve()}, marks=(0.0002, 0.005, 1.0))
    texts = written(figure)
    assert {"ρ = 0.0002, ρ√d = 0.004", "ρ = 0.005, ρ√d = 0.1", "SGD", "SAM"} <= {*texts}
    assert not any(text.startswith("ρ = 1") for text in texts)
    assert [text.get_va() for text in figure.axes[0].texts] == ["top", "bottom"]  # where the curves are not
    (second,) = figure.axes[0].child_axes
    np.testing.assert_allclose(second.get_xlim(), 20 * np.asarray(figure.axes[0].get_xlim()), rtol=1e-6)
    assert second.get_xlabel().startswith("ρ√d")


@pytest.mark.parametrize("other", [curve(number=100), pytest.param(curve(norm="l2"), marks=pytest.mark.long)])
def test_the_second_axis_needs_the_linf_norm_and_one_number_of_parameters(other):
    for curves in ({"SGD": curve(), "SAM": other}, {"l2": curve(norm="l2")}):
        figure = plots.plot_curve(curves)
        assert figure.axes[0].child_axes == []
        assert "ρ = 0.0002" in written(figure)


@pytest.mark.parametrize(
    "sharpness", [pytest.param((-1e-9, 1e-2, 1.0), marks=pytest.mark.long), (0.0, 0.0, 0.0), (np.nan, np.inf, 1.0)]
)
def test_sharpness_without_a_logarithm_is_omitted(sharpness):
    figure = plots.plot_curve(curve(sharpness=sharpness))
    drawn = figure.axes[0].lines[0].get_ydata()
    np.testing.assert_array_equal(np.isfinite(drawn), np.isfinite(sharpness) & (np.asarray(sharpness) > 0))
    written(figure)


def test_a_spectral_density_is_drawn_around_its_nodes():
    """Two distant peaks have the height of Gaussians with half the weight."""
    found = SpectralDensity(nodes=jnp.array([[-1.0, 50.0]]), weights=jnp.array([[0.5, 0.5]]))
    figure = plots.plot_density(found, 0.01, "Hessian")
    (panel,) = figure.axes
    at, density = panel.lines[-1].get_data()
    assert panel.get_yscale() == "log"
    for node in (-1.0, 50.0):
        near = np.abs(at - node) < 0.1
        np.testing.assert_allclose(density[near].max(), 0.5 / (0.01 * np.sqrt(2 * np.pi)), rtol=1e-3)
    assert panel.get_ylim()[0] > density.min()
    assert {"eigenvalue", "density (log scale)", "Hessian"} <= {*written(figure)}


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match=r"landscapes have \[1, 2\] directions"):
        plots.plot_landscapes({"SGD": line(), "SAM": plane()})
    with pytest.raises(ValueError, match=r"landscapes have \[\] directions"):
        plots.plot_landscapes({})
    with pytest.raises(ValueError, match="curves is empty"):
        plots.plot_curve({})
    with pytest.raises(ValueError, match="width is 0"):
        plots.plot_density(SpectralDensity(jnp.ones((1, 1)), jnp.ones((1, 1))), 0)


def test_global_settings_are_unchanged_and_pyplot_is_not_imported():
    before = dict(mpl.rcParams)
    plots.plot_landscape(line())
    plots.plot_curve(curve())
    assert dict(mpl.rcParams) == before
    program = "import sys, sam_optax.sharpness.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)  # noqa: S603


def test_what_has_too_few_points_or_no_number_is_refused():
    single = Landscape(np.array([0.0]), jnp.ones((1, 1)))
    with pytest.raises(ValueError, match="landscapes has one with a single coordinate"):
        plots.plot_landscape(single)
    with pytest.raises(ValueError, match="spectral_density has nodes that are not finite"):
        plots.plot_density(SpectralDensity(jnp.full((1, 1), jnp.nan), jnp.ones((1, 1))), 0.1)
    with pytest.raises(ValueError, match="width is 'wide'"):
        plots.plot_density(SpectralDensity(jnp.ones((1, 1)), jnp.ones((1, 1))), "wide")  # pyright: ignore[reportArgumentType]


def test_a_curve_of_a_diverged_network_is_drawn():
    figure = plots.plot_curve(curve(sharpness=(np.nan, np.nan, np.nan))._replace(first_order=np.full(3, np.nan)))
    assert figure.axes[0].get_yscale() == "linear"
    written(figure)
