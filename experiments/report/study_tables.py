"""The tables of a study: errors and sharpness with the paper's results, differences between methods, and settings."""

import functools
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from experiments.cli.tables import Table, listed, mean_and_deviation
from experiments.config import Config
from experiments.presets import published_of
from experiments.report.groups import Group, Study
from experiments.report.matches import Match, shown_matches
from experiments.report.paired import TEST_ERROR, Difference
from experiments.sharpness.columns import ProtocolColumns, headline, protocols_of
from experiments.sharpness.run_records import PAPERS_RADIUS
from experiments.study import labels
from experiments.training.methods import METHODS

_ALWAYS = ("dataset", "model", "method", "rho", "batch_plan", "lr_schedule", "learning_rate", "seed")
_MOST_PAIRS = 6
_COSTS = ("updates", "epochs", "examples")


def error_table(match: Match, study: Study) -> Table:
    """Returns the test error of each method and strategy, with its sharpness, the paper's results, and the costs."""
    protocol, rho = _shown(study)
    columns = _columns(match.groups)
    names = list(dict.fromkeys(name for _, name in sorted(columns, key=_order)))
    cells = {(group.row, name): group for group, name in columns}
    papers = {place: result for place, each in cells.items() if (result := published_of(each.configs()[0]))}
    methods = [row for row in study.rows if any((row, name) in cells for name in names)]
    rows = []
    for method in methods:
        rows.append((method, *(_error_cell(cells.get((method, name)), study, protocol, rho) for name in names)))
        if any((method, name) in papers for name in names):
            rows.append((f"{method}, in the paper", *(str(papers.get((method, name), "–")) for name in names)))
    costs = [("batch sizes", *(_batch_sizes(next(g for g, own in columns if own == name)) for name in names))]
    costs += [
        (what, *(_cost([(m, cells[m, name]) for m in methods if (m, name) in cells], of) for name in names))
        for what, of in _costs(match).items()
    ]
    caption = _error_caption(study, protocol, rho, list(dict.fromkeys(result.row for result in papers.values())))
    has_sharpness = protocol is not None or bool(papers)
    what = "test error, %" + (" / sharpness" if has_sharpness else "")
    title = ("Test error and sharpness " if has_sharpness else "Test error ") + match.title
    return Table([(what, *map(labels.heading, names)), *rows, *costs], caption, title.strip())


def sharpness_tables(study: Study) -> list[Table]:
    """Returns the loss and the sharpness at each radius of each group, for each protocol in which it was measured."""
    protocols = protocols_of([group.runs for group in study.groups])
    return [_sharpness_table(study, protocol, radii) for protocol, radii in protocols.items()]


def method_pairs(study: Study) -> dict[str, list[Difference | None]]:
    """Returns the differences in test error between methods, by strategy and match, in the order of `pairs_of`.

    Two groups that several matches have are compared once.
    """
    found: dict[str, list[Difference | None]] = {}
    compared: set[tuple[Group, Group]] = set()
    for match in shown_matches(study):
        where = match.title if match.title.startswith("at equal") else ""
        inside: dict[tuple[str, str], dict[str, Group]] = {}
        for group in match.groups:
            plan = "" if where or group.config.batch_plan in group.column else group.config.batch_plan
            inside.setdefault((group.column, plan), {}).setdefault(group.row, group)
        for column, plan in sorted(inside, key=lambda key: study.columns.index(key[0])):
            methods = inside[column, plan]
            pairs = [(methods.get(first), methods.get(second)) for first, second in pairs_of(study)]
            new = [(one, other) if one and other and (one, other) not in compared else None for one, other in pairs]
            compared.update(pair for pair in new if pair)
            row = [TEST_ERROR.compare(*pair) if pair else None for pair in new]
            if any(row):
                found[", ".join(filter(None, [labels.heading(column), plan, where]))] = row
    return found


def pairs_of(study: Study) -> list[tuple[str, str]]:
    """Returns the pairs of methods, later and earlier: all pairs, or those with the first method if there are many."""
    pairs = [(second, first) for first, second in combinations(study.rows, 2)]
    return pairs if len(pairs) <= _MOST_PAIRS else [pair for pair in pairs if pair[1] == study.rows[0]]


def chosen_table(study: Study) -> Table:
    """Returns the settings that were chosen for each group."""
    if not study.chosen:
        return Table([])
    heading = ("group", *(name.replace("_", " ").replace("rho", "ρ") for name in study.chosen))
    rows = [(labels.heading(g.name), *(_chosen(g, name) for name in study.chosen)) for g in study.groups]
    caption = "These settings were chosen for each method and strategy, so the groups differ in them, too."
    return Table([heading, *rows], caption, "What was chosen")


def followed_table(study: Study) -> Table:
    """Returns the batch plans that were decided during training."""
    decided = [group for group in study.groups if group.config.adaptive is not None]
    rows = [(group.row, group.config.batch_plan, _plans(group)) for group in decided]
    return Table([("method", "rule", "plans that the runs followed"), *rows], title="Plans that the noise decided")


def setting_table(study: Study) -> Table:
    """Returns the most important settings, and those that differ among runs or from their defaults."""
    configs = list(study.runs["config"])
    names = list(configs[0].settings)
    values = {name: list(dict.fromkeys(_setting(config, name) for config in configs)) for name in names}
    changed = set().union(*map(_changed, configs))
    shown = [name for name in names if name in {*_ALWAYS, *changed} or len(set(values[name]) - {"–"}) > 1]
    rows = [(name.replace("_", " "), "; ".join(each for each in values[name] if each != "–") or "–") for name in shown]
    return Table([("setting", "value"), *rows], title="Settings")


def run_table(study: Study) -> Table:
    """Returns the cost and the results of each run."""
    heading = ("run", "seed", "test error, %", "training loss", "updates", "gradient evaluations", "seconds", "folder")
    rows = [(group.name, *_run(row)) for group in study.groups for row in group.runs.to_dict("records")]
    return Table([heading, *rows], title="Runs")


def _shown(study: Study) -> tuple[ProtocolColumns | None, float]:
    protocols = protocols_of([group.runs for group in study.groups])
    return next(((protocol, headline(radii)) for protocol, radii in protocols.items()), (None, 0.0))


def _columns(groups: Sequence[Group]) -> list[tuple[Group, str]]:
    """Returns each group with its column, which has the plan if a method would have two groups in one column."""
    names = [(group.row, group.column) for group in groups]
    twice = {column for row, column in names if names.count((row, column)) > 1}

    def name(group: Group) -> str:
        is_unique = group.column not in twice or group.config.batch_plan in group.column
        return group.column if is_unique else f"{group.column}, {group.config.batch_plan}"

    return [(group, name(group)) for group in groups]


def _order(placed: tuple[Group, str]) -> tuple[Any, ...]:
    group, column = placed
    return *labels.strategy_order(group.config), group.has_own_rate, group.epochs, column


def _error_cell(group: Group | None, study: Study, protocol: ProtocolColumns | None, rho: float) -> str:
    if group is None:
        return "–"
    text = mean_and_deviation((100 * group.values("test_error")).tolist())
    if protocol is not None:
        text += f" / {_mean(group, protocol.column(rho)) or '–'}"
    seeds = [] if len(group.runs) == len(study.seeds) else [f"seeds: {len(group.runs)}"]
    notes = seeds + ([f"diverged: {group.diverged}"] if group.diverged else [])
    return f"{text} / {', '.join(notes)}" if notes else text


def _error_caption(study: Study, protocol: ProtocolColumns | None, rho: float, papers_rows: Sequence[str]) -> str:
    seeds = f"mean ± standard deviation over the {len(study.seeds)} seeds" if len(study.seeds) > 1 else "of one seed"
    words = [f"Test error after the last epoch, {seeds}."]
    if protocol is not None:
        words.append(f"Sharpness: the mean of the largest rise of the loss within ρ = {rho:.3g} ({protocol.title}).")
    if any(labels.heading(column) != column for column in study.columns):
        words.append("The paper marks a growing batch by +B, and a cosine rate by +C.")
    if papers_rows:
        words.append(f"The paper's row is {listed(papers_rows)}: one run of 200 epochs per cell, all training images.")
        words.append("The sharpness of different networks cannot be compared.")
    return " ".join(words)


def _batch_sizes(group: Group) -> str:
    """Returns the batch sizes of a plan in their order: all of two, or the first and the last."""
    own = list(map(str, labels.sizes(group.config)))
    return "as decided" if group.config.adaptive else "→".join([own[0], "…", own[-1]] if len(own) > 2 else own)


def _costs(match: Match) -> dict[str, Callable[[Group], int]]:
    names = ("updates",) if not match.title and len({g.epochs for g in match.groups}) == 1 else _COSTS
    return {name: functools.partial(Group.mean, name=name) for name in names}


def _cost(inside: Sequence[tuple[str, Group]], of: Callable[[Group], int]) -> str:
    """Returns the cost of the groups of a column, first that of most of them: `128; SGD 256`."""
    rows: dict[int, list[str]] = {}
    for row, group in inside:
        rows.setdefault(of(group), []).append(row)
    usual, *others = sorted(rows, key=lambda value: -len(rows[value]))
    return "; ".join([f"{usual:,}", *(f"{', '.join(rows[value])} {value:,}" for value in others)])


def _mean(group: Group, column: str) -> str:
    """Returns the mean of a column; empty unless all runs have a value."""
    values = group.values(column)
    return "" if np.isnan(values).any() else f"{values.mean():.3g}"


def _sharpness_table(study: Study, protocol: ProtocolColumns, radii: Sequence[float]) -> Table:
    has_loss = protocol.loss_column in study.runs
    heading = ["group", *(["training loss"] if has_loss else [])]
    columns = [protocol.loss_column] if has_loss else []
    for rho in radii:
        heading.append(f"sharpness, ρ {rho:.3g}")
        columns.append(protocol.column(rho))
        if protocol.first_order_column(rho) in study.runs:
            heading.append("first-order part ÷ sharpness")
            columns.append(protocol.first_order_column(rho))
    rows = [(group.name, *(sharpness_cell(group, name) for name in columns)) for group in study.groups]
    return Table([tuple(heading), *rows], _sharpness_caption(study, protocol), f"Sharpness, {protocol.title}")


def sharpness_cell(group: Group, column: str) -> str:
    """Returns the mean ± standard deviation of a column of sharpness, or the ratio of the first-order part to it."""
    values = group.values(column)
    if np.isnan(values).any():
        return "–"
    if not column.startswith("first order"):
        return mean_and_deviation(values.tolist(), ".3g")
    whole = group.values(column.replace("first order", "sharpness", 1)).sum()
    return f"{values.sum() / whole:.3g}" if whole > 0 else "–"


def _sharpness_caption(study: Study, protocol: ProtocolColumns) -> str:
    ball = "ℓ2 ball" if "ℓ2" in protocol.departures else "ℓ∞ ball"
    ball += " in units of each weight" if "adaptive" in protocol.departures else ""
    counts = {int(n) for group in study.groups for n in group.values("parameters") if n > 0}
    found_by = f"found by APGD ({protocol.title})"
    words = [f"Sharpness is the largest rise of the loss within the {ball} of radius ρ, {found_by}."]
    words += [
        f"With {count:,} parameters, the corner of the ℓ∞ ball of radius {PAPERS_RADIUS} is "
        f"{PAPERS_RADIUS * count**0.5:.2g} away, so values at one radius cannot be compared between networks of "
        "different size."
        for count in counts
    ]
    if any(str(name).startswith("first order") for name in study.runs):
        words.append(
            "The first-order part is ρ times the norm of the gradient. Where it is most of the sharpness, or more than "
            "it because the loss curves down, the sharpness follows the training loss."
        )
    return " ".join(words)


def _chosen(group: Group, name: str) -> str:
    if not _is_used(group.config, name):
        return "–"
    values = dict.fromkeys(config.settings[name] for config in group.configs())
    return ", ".join("–" if value is None else f"{value:g}" for value in values)


def _plans(group: Group) -> str:
    """Returns `2x16,23x256 (seeds 0, 2); 3x16,22x256 (seed 1)`."""
    seeds: dict[str, list[int]] = {}
    for seed, plan in zip(group.seeds, group.runs["plan"], strict=True):
        seeds.setdefault(str(plan), []).append(seed)
    return "; ".join(f"{plan} (seed{'s' * (len(own) > 1)} {', '.join(map(str, own))})" for plan, own in seeds.items())


def _setting(config: Config, name: str) -> str:
    """Returns a setting in words; a dash if the run has none or does not use it."""
    value = config.settings[name]
    return "–" if value is None or not _is_used(config, name) else str(value)


def _is_used(config: Config, name: str) -> bool:
    return name not in ("rho", "alpha") or name in METHODS[config.method].uses


def _changed(config: Config) -> set[str]:
    """Returns the settings of a run that differ from their defaults."""
    usual = Config.from_settings(method=config.method, optimizer=config.descent.optimizer).settings
    return {name for name, value in config.settings.items() if value != usual[name] and _is_used(config, name)}


def _run(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(row["seed"]),
        f"{100 * row['test_error']:.2f}",
        "– (diverged)" if row["diverged"] else f"{row['train_loss']:.4g}",
        str(row["updates"]),
        str(row["gradient_evaluations"]),
        f"{row['seconds']:.0f}" if pd.notna(row["seconds"]) else "–",
        row["folder"] or "–",
    )
