"""The pictures of a study, one message each."""

from collections.abc import Iterable, Mapping, Sequence, Sized
from functools import partial
from pathlib import Path

import numpy as np

from experiments.report import (
    budget_pictures,
    claims,
    decided_plans,
    drawing,
    loss_pictures,
    paper_pictures,
    pictures,
    sharpness_curves,
    sharpness_pictures,
)
from experiments.report.curves import Quantity
from experiments.report.drawing import Picture
from experiments.report.groups import FEW, Group, Study
from experiments.report.matches import papers_cells, reference
from experiments.report.paired import DIRECT, Difference, differences
from experiments.report.run_curves import Curve, Curves, curves_of, mean_curves
from experiments.report.sentences import listed


def pictures_of(study: Study, folder: Path) -> list[Picture]:
    """Draw what there is to see of a study.

    Args:
      study: what was run.
      folder: where the pictures go.

    Returns:
      Error and sharpness first, then the differences, then every other quantity. Where there are many groups, curves
      are those of the paper's cells.
    """
    few = _few(study)
    return [
        *main_pictures_of(study, folder),
        *_sharpness(study, few, folder),
        *_differences(study, folder),
        *_quantities(study, few, folder),
    ]


def main_pictures_of(study: Study, folder: Path) -> list[Picture]:
    """Draw error and sharpness of a study, as `pictures_of` does."""
    return [
        *_accuracy(study, folder),
        *_followed(study, folder),
        *_budget(study, folder),
        *_decided(study, folder),
        *_loss(study, folder),
    ]


def _few(study: Study) -> Study:
    """Of a large study, those groups that have a line."""
    cells = papers_cells(study) if study.is_large else study.groups
    return study._replace(groups=cells[: 2 * FEW])


def _drawn(drawn: Sized, study: Study) -> str:
    """Which groups a picture has, where it has not all."""
    if len(drawn) == len(study.groups):
        return ""
    decided = ["the adaptive plan's"] if decided_plans.decided_groups(study) else []
    whose = listed(["the increasing plan's", "the constant batch size's", *decided])
    which = f"{whose}, at its epochs" if reference(study) else "the first ones"
    return f" {len(drawn)} of {len(study.groups)} groups are drawn: {which}."


def _accuracy(study: Study, folder: Path) -> list[Picture]:
    cells = papers_cells(study)
    found = {group.name: paper_pictures.accuracy(curve) for group, curve in _curves(cells, "test_error")}
    caption = f"{_mean(study)} of the test accuracy: a panel a strategy, a line a method.{_drawn(found, study)}"
    figure = paper_pictures.along_epochs(cells, found, "test accuracy, %", can_be_logarithmic=False)
    return [drawing.save(figure, "Test accuracy over epochs", caption, folder)]


def _followed(study: Study, folder: Path) -> list[Picture]:
    setting = sharpness_curves.most_followed(study.runs)
    if setting is None:
        return []
    found = {}
    for group in papers_cells(study):
        inside = [sharpness_curves.followed(run, *setting) for run in group.runs]
        known = [{"sharpness": curve} for curve in inside if curve is not None]
        curves = mean_curves(known) if len(known) == len(inside) else {}
        if "sharpness" in curves and np.isfinite(curves["sharpness"].values).any():
            found[group.name] = curves["sharpness"]
    if not found:
        return []
    caption = f"{_mean(study)} of the worst case at ρ {setting[1]:.3g}, {setting[0].title}.{_drawn(found, study)}"
    figure = paper_pictures.along_epochs(papers_cells(study), found, "sharpness")
    return [drawing.save(figure, "Sharpness over epochs", caption, folder)]


def _budget(study: Study, folder: Path) -> list[Picture]:
    if len({group.gradient_evaluations for group in study.groups}) < 2:
        return []
    caption = "All groups, mean ± standard deviation over the seeds: lower is better, and further left is cheaper."
    if any(group.remark for group in study.groups):
        caption += " A line joins the lengths that one strategy was run for."
    figure = budget_pictures.against_gradients(study)
    return [drawing.save(figure, "Test error against gradient evaluations", caption, folder)]


def _decided(study: Study, folder: Path) -> list[Picture]:
    groups = decided_plans.decided_groups(study)
    if not groups:
        return []
    figure = decided_plans.against_noise(groups)
    return [drawing.save(figure, "Noise scale and batch size over epochs", decided_plans.CAPTION, folder)]


def _loss(study: Study, folder: Path) -> list[Picture]:
    measures = loss_pictures.measures_of(study)
    if not measures:
        return []
    caption = (
        "A point a run, after the last epoch. Where all points lie on one line, the measure says little beyond the "
        "loss; where they part at equal loss, some minima are flatter."
    )
    return [drawing.save(loss_pictures.against_loss(measures), "Sharpness against training loss", caption, folder)]


def _sharpness(study: Study, few: Study, folder: Path) -> list[Picture]:
    found = sharpness_pictures.figures(study, few)
    return [drawing.save(figure, title, caption, folder) for title, (caption, figure) in found.items()]


def _differences(study: Study, folder: Path) -> list[Picture]:
    direct = [pair for pair in differences(study.groups) if pair.is_direct] if not study.is_large else []
    told = DIRECT
    if not direct:
        told = "Of the paper's claims at equal epochs, and of growth against the best constant and the plan reversed."
        direct = _claimed(claims.claims(study))
    if not direct:
        return []
    figure = pictures.draw_differences(study, direct)
    caption = f"{told} Filled: the interval leaves 0 out."
    return [drawing.save(figure, "Paired differences in test error", caption, folder, "differences")]


def _claimed(found: Sequence[claims.Claim]) -> list[Difference]:
    """The differences in test error that the claims are made of, each once; those of decay at one match."""
    once: dict[tuple[str, str], Difference] = {}
    first = [claim.match for claim in found if claim.kind == claims.DECAY][:1]
    for claim in found:
        if claim.kind == claims.RIVAL or (claim.kind == claims.DECAY and [claim.match] != first):
            continue
        pair = next(iter(claim.found.values()), None)
        if pair is not None:
            once.setdefault((pair.first.name, pair.second.name), pair)
    return list(once.values())


def _quantities(study: Study, few: Study, folder: Path) -> list[Picture]:
    curves = {group.name: mean_curves([curves_of(run.folder) for run in group.runs]) for group in few.groups}
    diverged = {group.name for group in few.groups if group.diverged}
    drawn = []
    for quantity in filter(partial(_varies, curves), pictures.drawable(curves)):
        having = {name: each for name, each in curves.items() if quantity.name in each}
        figure = pictures.draw_quantity(quantity, few, having)
        caption = f"{_seen(quantity, having, diverged)}{_drawn(few.groups, study)}"
        drawn.append(drawing.save(figure, quantity.title, caption, folder, quantity.name))
    return drawn


def _varies(curves: Mapping[str, Curves], quantity: Quantity) -> bool:
    """Whether there is more to see of it than one number."""
    values = np.concatenate([each[quantity.name].values for each in curves.values() if quantity.name in each])
    low, high = np.nanmin(values), np.nanmax(values)
    return not quantity.is_set or not np.isclose(low, high)


def _curves(groups: Iterable[Group], name: str) -> list[tuple[Group, Curve]]:
    found = [(group, mean_curves([curves_of(run.folder) for run in group.runs])) for group in groups]
    return [(group, curves[name]) for group, curves in found if name in curves]


def _mean(study: Study) -> str:
    return "The mean over the seeds" if len(study.seeds) > 1 else "The course"


def _seen(quantity: Quantity, curves: Mapping[str, Curves], diverged: set[str]) -> str:
    """The ends of the range over groups: after the last epoch for what is measured, of all steps for what is set."""
    values = {name: each[quantity.name].values for name, each in curves.items()}
    if quantity.is_set:
        low, high = (f"{limit(np.concatenate(list(values.values()))):.3g}" for limit in (np.nanmin, np.nanmax))
        return f"From {low} to {high}."
    last = {name: each[-1] for name, each in values.items() if np.isfinite(each[-1])}
    lost = [f"Diverged: {', '.join(lost)}."] if (lost := sorted((values.keys() - last.keys()) & diverged)) else []
    return " ".join(filter(None, [_range(last), quantity.note, *lost]))


def _range(last: Mapping[str, float]) -> str:
    if not last:
        return ""
    least, most = min(last, key=last.__getitem__), max(last, key=last.__getitem__)
    if least == most:
        return f"After the last epoch: {last[least]:.3g}."
    return f"After the last epoch: least {last[least]:.3g} ({least}), most {last[most]:.3g} ({most})."
