"""What a report says of one study, before it is put on a page."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.reporting import pictures, sharpness, sharpness_curves, sharpness_pictures
from experiments.reporting.curves import Curves, Quantity, mean_curves
from experiments.reporting.groups import Study
from experiments.reporting.paired import Difference, differences
from experiments.reporting.runs import Run
from experiments.reporting.tables import Rows, difference_rows, error_rows, run_rows, setting_rows
from experiments.reporting.ways import Way

DIRECT = "Of the pairs that differ in strategy alone, or in method alone."


class Picture(NamedTuple):
    """A picture on disk.

    Attributes:
      title: what it shows.
      caption: what is to be seen.
      stem: its path, without the ending: there are `.svg` and `.png`.
    """

    title: str
    caption: str
    stem: Path


class Section(NamedTuple):
    """What a report says of one study.

    Attributes:
      title: the model and the data set.
      errors: the table of test errors.
      caption: what its figures are.
      differences: the table of paired differences; its heading alone where no two groups share two seeds.
      direct: how many of them, from the top, differ in strategy alone or in method alone.
      verdict: what may be concluded from it.
      sharpness: the tables of sharpness; none where it was not measured.
      flatness: what they say, in words.
      pictures: a quantity each.
      settings: every setting.
      runs: every run.
    """

    title: str
    errors: Rows
    caption: str
    differences: Rows
    direct: int
    verdict: str
    sharpness: list[Rows]
    flatness: str
    pictures: list[Picture]
    settings: Rows
    runs: Rows


def write_section(study: Study, folder: Path) -> Section:
    """Put together what there is to say of a study, its pictures drawn into `folder`."""
    pairs = differences(study.groups)
    drawn = [*_draw_differences(study, pairs, folder), *_draw_quantities(study, folder)]
    return Section(
        title=study.title,
        errors=error_rows(study),
        caption=_caption(study),
        differences=difference_rows(pairs),
        direct=sum(pair.is_direct for pair in pairs),
        verdict=_verdict(pairs),
        sharpness=_sharpness_tables(study),
        flatness=_flatness(study),
        pictures=[*drawn, *_draw_sharpness(study, folder)],
        settings=setting_rows(study),
        runs=run_rows(study),
    )


def _caption(study: Study) -> str:
    seeds = ", ".join(map(str, study.seeds))
    if len(study.seeds) == 1:
        return f"Test error after the last epoch, of the one seed {seeds}."
    return f"Test error after the last epoch, mean ± standard deviation over the seeds {seeds}."


def _verdict(pairs: list[Difference]) -> str:
    if not pairs:
        return "Nothing can be said of differences: no two groups of runs share two seeds."
    holding = sum(pair.verdict == "holds" for pair in pairs)
    return (
        f"Differences that hold: {holding} of {len(pairs)}. Runs of one seed share initialisation, split and data "
        "order, so they are compared seed by seed; a difference holds where the 95% t interval of its mean excludes 0. "
        f"Each is taken by itself: of {len(pairs)} true zeros about {0.05 * len(pairs):.2g} would pass by chance."
    )


def _sharpness_tables(study: Study) -> list[Rows]:
    ways = sharpness.ways_of(study)
    papers = [sharpness.paper_rows(study, way, radii) for way, radii in ways.items()][:1]
    return papers + [sharpness.radius_rows(study, way, radii) for way, radii in ways.items()]


def _flatness(study: Study) -> str:
    for way, radii in sharpness.ways_of(study).items():  # the first one
        return " ".join(filter(None, [sharpness.caption(study, way), sharpness.orderings(study, way, radii)]))
    return ""


def _draw_sharpness(study: Study, folder: Path) -> list[Picture]:
    drawn = []
    for title, (caption, figure) in sharpness_pictures.figures(study).items():
        stem = folder / title.lower().replace(" ", "-")
        pictures.save(figure, stem)
        drawn.append(Picture(title, caption, stem))
    return drawn


def _draw_differences(study: Study, pairs: list[Difference], folder: Path) -> list[Picture]:
    direct = [pair for pair in pairs if pair.is_direct]
    if not direct:
        return []
    stem = folder / "differences"
    pictures.draw_differences(study, direct, stem)
    caption = f"{DIRECT} Filled: the difference holds."
    return [Picture("Paired differences in test error", caption, stem)]


def _draw_quantities(study: Study, folder: Path) -> list[Picture]:
    followed = sharpness_curves.most_followed(study.runs)
    curves = {group.name: mean_curves([_with_sharpness(run, followed) for run in group.runs]) for group in study.groups}
    diverged = {group.name for group in study.groups if group.diverged}
    drawn = []
    for quantity in pictures.drawable(curves):
        having = {name: each for name, each in curves.items() if quantity.name in each}
        stem = folder / quantity.name
        pictures.draw_quantity(quantity, study, having, stem)
        seen = [_seen(quantity, having, diverged)]
        if quantity.name == "sharpness" and followed is not None:
            seen += [f"At ρ {followed[1]:.3g}, {followed[0].title}."]
        drawn.append(Picture(quantity.title, " ".join(seen), stem))
    return drawn


def _with_sharpness(run: Run, followed: tuple[Way, float] | None) -> Curves:
    """The curves of a run, that of its sharpness among them where it was measured on the way."""
    curve = None if followed is None else sharpness_curves.followed(run, *followed)
    return run.curves if curve is None else run.curves | {"sharpness": curve}


def _seen(quantity: Quantity, curves: Mapping[str, Curves], diverged: set[str]) -> str:
    """The ends of the range over groups: after the last epoch for what is measured, of all steps for what is set."""
    values = {name: each[quantity.name].values for name, each in curves.items()}
    if quantity.is_set:
        low, high = (f"{limit(np.concatenate(list(values.values()))):.3g}" for limit in (np.nanmin, np.nanmax))
        return f"{low} throughout." if low == high else f"From {low} to {high}."
    last = {name: each[-1] for name, each in values.items() if np.isfinite(each[-1])}
    lost = [f"Diverged: {', '.join(lost)}."] if (lost := sorted((values.keys() - last.keys()) & diverged)) else []
    return " ".join(filter(None, [_range(last), quantity.remark, *lost]))


def _range(last: Mapping[str, float]) -> str:
    if not last:
        return ""
    least, most = min(last, key=last.__getitem__), max(last, key=last.__getitem__)
    if least == most:
        return f"After the last epoch: {last[least]:.3g}."
    return f"After the last epoch: least {last[least]:.3g} ({least}), most {last[most]:.3g} ({most})."
