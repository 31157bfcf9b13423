"""The answers of a study: a matrix of the paper's claims, sentences that sum it up, and what the study cannot show."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from experiments.report import labels
from experiments.report.claims import BEST, DECAY, DECIDED, GROWTH, REVERSED, RIVAL, Claim, lacking
from experiments.report.groups import Group, Study, said
from experiments.report.matches import matches, reference
from experiments.report.paired import (
    FEWEST_SEEDS,
    TEST_ERROR,
    Answer,
    Difference,
    Measure,
    direct_pairs,
    measures_of,
)
from experiments.report.tables import Table, listed, method_pairs, pairs_of

BY_CHANCE = 0.05
"""The share of intervals that exclude 0 by chance if there is no effect at all."""


@dataclass(frozen=True)
class Cell:
    """A cell with an answer.

    Attributes:
      symbol: the sign of the answer.
      effect: the mean difference.
      interval: its 95% interval; empty if it is unknown.
      note: the number of seeds, and what else a reader has to know.
    """

    symbol: str
    effect: str
    interval: str
    note: str

    def __str__(self) -> str:
        """The cell on one line."""
        interval = f" ({self.interval})" if self.interval else ""
        return f"{self.symbol} {self.effect}{interval}; {self.note}"


@dataclass(frozen=True)
class Column:
    """A column of the matrix: one claim, for several methods.

    Attributes:
      heading: the comparison, as `A − B`.
      subject: what is claimed to be better, as the subject of a sentence.
      baseline: what it is compared with, as it stands in a sentence.
      claims: the claims by method.
    """

    heading: str
    subject: str
    baseline: str
    claims: dict[str, Claim]


def cell_of(found: Difference | None, note: str = "") -> Cell | str:
    """Returns a cell with a difference; a dash if it is unknown."""
    if found is None:
        return "–"
    notes = [_seeds(found.seeds), note, found.obstacle if found.seeds >= FEWEST_SEEDS else "too few for an answer"]
    measure = found.measure
    return Cell(found.answer.value, measure.effect(found), measure.interval(found), ", ".join(filter(None, notes)))


def columns_of(study: Study, claims: Sequence[Claim]) -> list[Column]:
    """Returns the columns of the matrix: growth, growth that the noise decides on, and falling learning rates."""
    return [*_growth_columns(study, claims), *_adaptive_columns(claims), *_decay_columns(claims)]


def matrix(study: Study, columns: Sequence[Column], measure: Measure) -> Table:
    """Returns the matrix for a measure: a row per method, a column per claim."""
    methods = [row for row in study.rows if any(row in column.claims for column in columns)]
    heading = ("method", *(column.heading for column in columns))
    rows = [(method, *(_claim_cell(column.claims.get(method), measure) for column in columns)) for method in methods]
    return Table([heading, *rows], title=measure.name[0].upper() + measure.name[1:])


def claim_table(claims: Sequence[Claim], measures: Sequence[Measure]) -> Table:
    """Returns a table with a row per claim that is known, and a column per measure."""
    known = [claim for claim in claims if claim.is_known]
    pairs = [pair for claim in known for pair in claim.found.values() if pair is not None]
    rows = [
        (
            ", ".join(filter(None, [f"{labels.heading(claim.group.column)} − {_baseline(claim)}", claim.match])),
            claim.group.row,
            *(_claim_cell(claim, measure) for measure in measures),
        )
        for claim in known
    ]
    heading = ("A − B", "method", *(measure.name for measure in measures))
    return Table([heading, *rows], f"{multiplicity(pairs)} Ratios are of geometric means.")


def sentences(columns: Sequence[Column]) -> list[str]:
    """Returns the answers on the test error in sentences: growth against the best constant batch, and falling rates."""
    best = [column for column in columns if _is_of(column, BEST, "equal epochs")]
    papers = [column for column in columns if _is_of(column, GROWTH)]
    falling = [column for column in columns if _is_of(column, DECAY)]
    return [each for column in (*best, *papers, *falling) if (each := _sentence(column))]


def subtitle(study: Study, columns: Sequence[Column]) -> str:
    """Returns the question, the number of runs, the methods and the seeds."""
    question = (
        "Does a growing batch, or a falling learning rate, lower the test error? After Harada and Iiduka, "
        "arXiv 2409.09984. "
    )
    count, seeds = len(study.runs), study.seeds
    is_range = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
    over = f"{seeds[0]} to {seeds[-1]}" if is_range else listed(list(map(str, seeds)))
    runs = f"{count} runs of {listed(study.rows)}; {_seeds(len(seeds))}: {over}."
    return f"{question if columns else ''}{runs}"


def ranking(study: Study) -> list[str]:
    """Returns which groups have the lowest and the highest test error, for a study that checks no claim."""
    means = {group.name: 100 * group.runs["test_error"].mean() for group in study.groups}
    low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    if len(means) == 1:
        return [f"{low} has a test error of {means[low]:.2f}%."]
    return [
        f"{low} has the lowest test error, {means[low]:.2f}%, and {high} the highest, {means[high]:.2f}% (means over "
        f"{_seeds(len(study.seeds))})."
    ]


def pair_matrix(study: Study) -> Table:
    """Returns the differences of groups that differ in strategy or method alone, for a study of few groups."""
    pairs = [] if study.is_large else direct_pairs(study.groups)
    rows = [(f"{pair.first.name} − {pair.second.name}", cell_of(pair)) for pair in pairs]
    return Table([("A − B", "test error"), *rows], multiplicity(pairs), "Test error")


def method_table(study: Study) -> Table:
    """Returns the differences between methods: a row per strategy and match, a column per pair of methods."""
    found = method_pairs(study)
    rows = [(name, *map(cell_of, row)) for name, row in found.items()]
    pairs = [pair for row in found.values() for pair in row if pair is not None]
    heading = ("test error", *(f"{first} − {second}" for first, second in pairs_of(study)))
    return Table([heading, *rows], multiplicity(pairs))


def variant_table(study: Study, found: Sequence[Study]) -> Table:
    """Returns the differences of a study from the one before it on the same examples that has most settings in common.

    Args:
      study: the study.
      found: all studies, those with the fewest changed settings first.
    """
    before = [each for each in takewhile(lambda each: each is not study, found) if _is_same_problem(each, study)]
    if not before:
        return Table([])
    base = min(before, key=lambda each: len(set(study.part) - set(each.part)))
    measures = measures_of(study)
    others = {(group.row, group.column): group for group in base.groups}
    rows = [
        (group.name, *(cell_of(measure.compare(group, others[group.row, group.column])) for measure in measures))
        for group in study.groups
        if (group.row, group.column) in others
    ]
    settings = listed([said(name, value) for name, value in study.part if (name, value) not in base.part])
    caption = f"This part minus {base.title}. This part has {settings}."
    return Table([("group", *(measure.name for measure in measures)), *rows], caption)


def limits(study: Study, claims: Sequence[Claim], columns: Sequence[Column], *, is_planned: bool) -> list[str]:
    """Returns what the study cannot show, in sentences.

    Args:
      study: the study.
      claims: its claims.
      columns: the columns of its matrix.
      is_planned: whether some comparisons were planned before the first run.
    """
    found = [pair for column in columns for claim in column.claims.values() if (pair := claim.found[TEST_ERROR.title])]
    count = len(study.seeds)
    few = f"A conclusion needs {FEWEST_SEEDS} seeds or more, and this study has {count}." if count < FEWEST_SEEDS else ""
    tuned = "" if study.chosen else ", with one learning rate and radius for all strategies"
    problem = f"{dict(study.part)['model']} on {dict(study.part)['dataset']}"
    best = [claim for claim in claims if claim.kind == BEST and claim.is_known]
    words = [
        few,
        _resolution(found, count),
        *_gaps(study, claims),
        "The best constant batch is selected on the same runs that it is compared with, which favours it." if best else "",
        "" if is_planned or not found else _multiplicity(found),
        f"All runs are of {problem}{tuned}. Other problems and settings may have other answers.",
    ]
    return [each for each in words if each]


def multiplicity(found: Sequence[Difference]) -> str:
    """Returns how many intervals exclude 0, and how many would by chance alone."""
    clear = sum(each.answer is not Answer.OPEN for each in found)
    return (
        f"{clear} of these {len(found)} intervals exclude no difference. Without any effect, about "
        f"{BY_CHANCE * len(found):.2g} would do so by chance."
    )


def _is_same_problem(one: Study, other: Study) -> bool:
    names = ("dataset", "model", "train_examples", "label_noise", "validation")
    return all(dict(one.part)[name] == dict(other.part)[name] for name in names)


def _growth_columns(study: Study, claims: Sequence[Claim]) -> list[Column]:
    base = reference(study)
    if base is None:
        return []
    fixed = [claim for claim in claims if claim.group.config.adaptive is None]
    papers, best = _of(fixed, GROWTH), _of(fixed, BEST, "equal epochs")
    named = labels.heading(next(iter(papers.values())).baselines[0].column) if papers else "paper's constant"
    size = named.removeprefix("constant").strip()
    constant = f"the paper's constant batch{f' of {size}' if size else ''}"
    grown = labels.heading("increasing")
    subject = "a growing batch"
    columns = [
        Column(f"{grown} − {named}, as in the paper", subject, constant, papers),
        Column(f"{grown} − best constant batch", subject, _best_in_words(best.values()), best),
        Column(f"{grown} − reversed plan", subject, "the same plan reversed", _of(fixed, REVERSED, "equal epochs")),
        Column(
            f"{grown} − best constant batch, at equal updates",
            subject,
            "the best constant batch at equal updates",
            _of(fixed, BEST, "equal updates"),
        ),
    ]
    return columns if any(column.claims for column in columns) else []


def _adaptive_columns(claims: Sequence[Claim]) -> list[Column]:
    decided = [claim for claim in claims if claim.group.config.adaptive is not None]
    columns = []
    for name in dict.fromkeys(claim.group.column for claim in decided):
        own = [claim for claim in decided if claim.group.column == name]
        best, planned = _of(own, BEST, "equal epochs"), _of(own, DECIDED, "equal epochs")
        subject = f"a batch that the noise decides on ({name})"
        columns.append(Column(f"{name} − best constant batch", subject, _best_in_words(best.values()), best))
        columns.append(Column(f"{name} − increasing (+B)", subject, "the increasing plan", planned))
    return [column for column in columns if column.claims]


def _decay_columns(claims: Sequence[Claim]) -> list[Column]:
    columns = []
    for kind in (DECAY, RIVAL):
        for name in dict.fromkeys(claim.group.column for claim in claims if claim.kind == kind):
            own = [claim for claim in claims if claim.kind == kind and claim.group.column == name]
            first = {claim.group.row: claim for claim in reversed(own) if claim.match == own[0].match}
            baseline = labels.heading(own[0].baselines[0].column)
            subject = f"a falling learning rate ({labels.heading(name)})"
            columns.append(Column(f"{labels.heading(name)} − {baseline}", subject, "the constant rate", first))
    return columns


def _of(claims: Iterable[Claim], kind: str, match: str = "") -> dict[str, Claim]:
    found: dict[str, Claim] = {}
    for claim in claims:
        if claim.kind == kind and match in claim.match:
            found.setdefault(claim.group.row, claim)
    return found


def _is_of(column: Column, kind: str, match: str = "") -> bool:
    return any(claim.kind == kind and match in claim.match for claim in column.claims.values())


def _best_in_words(claims: Iterable[Claim]) -> str:
    most = max((claim.candidates for claim in claims), default=0)
    return f"the best of {most} constant batches" if most else "the best constant batch"


def _baseline(claim: Claim) -> str:
    return f"best of {claim.candidates} constant batches" if claim.kind == BEST else labels.heading(claim.baselines[0].column)


def _claim_cell(claim: Claim | None, measure: Measure) -> Cell | str:
    if claim is None:
        return "–"
    found = claim.found[measure.title]
    note = ""
    if found is not None and claim.kind == BEST:
        note = f"{labels.heading(found.second.column)} is best of {claim.candidates}"
    return cell_of(found, note)


def _sentence(column: Column) -> str:
    """Returns the answers of a column in a sentence, with the methods of one answer together."""
    by_words: dict[str, list[str]] = {}
    seeds = set()
    for method, claim in column.claims.items():
        found = claim.found[TEST_ERROR.title]
        if found is not None:
            seeds.add(found.seeds)
            by_words.setdefault(_in_words(found, column.baseline), []).append(method)
    if not by_words:
        return ""
    parts = [words.format(listed(methods)) for words, methods in by_words.items()]
    over = f"{_seeds(max(seeds))}" if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)} seeds"
    subject = column.subject[0].upper() + column.subject[1:]
    return f"{subject} {'; it '.join(parts)} ({over})."


def _in_words(found: Difference, baseline: str) -> str:
    if found.obstacle:
        return f"has no answer against {baseline} for {{}}: {found.obstacle}"
    return {
        Answer.YES: f"has a lower test error than {baseline} for {{}}",
        Answer.NO: f"has a higher test error than {baseline} for {{}}",
        Answer.OPEN: f"is not shown to differ from {baseline} for {{}}",
    }[found.answer]


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count != 1)}"


def _resolution(found: Sequence[Difference], seeds: int) -> str:
    """Returns how large an effect must be to be shown."""
    widths = [(each.high - each.low) / 2 for each in found if each.answer is Answer.OPEN and not each.obstacle]
    if not widths:
        return ""
    return (
        f"A “?” does not mean that there is no effect. With {_seeds(seeds)}, an interval with a “?” extends "
        f"{statistics.median(widths):.2g} points to either side in the median, so smaller effects cannot be shown."
    )


def _multiplicity(found: Sequence[Difference]) -> str:
    return (
        f"No comparison was planned before the first run. Of the {len(found)} intervals of test error in the matrix, about "
        f"{BY_CHANCE * len(found):.2g} would exclude 0 by chance if there were no effect at all."
    )


def _gaps(study: Study, claims: Sequence[Claim]) -> list[str]:
    """Returns which comparisons of growth with the best constant batch are missing, with the reason."""
    base = reference(study)
    if base is None:
        return []
    best = [claim for claim in claims if claim.kind == BEST]
    if not best:
        return [
            "Whether growth itself helps cannot be said: no second constant batch size was run, so an effect of growth "
            "cannot be distinguished from an effect of the small first batches."
        ]
    plans = dict.fromkeys(["increasing", *(g.column for g in study.groups if g.config.adaptive is not None)])
    words = [each for plan in plans for each in _missing(study, [c for c in best if c.group.column == plan], plan)]
    return [*words, *_partly(base, best)]


def _missing(study: Study, best: Sequence[Claim], plan: str) -> list[str]:
    """Returns for which methods and matches there is no comparison of a plan, by reason."""
    methods = dict.fromkeys(group.row for group in study.groups)
    reasons: dict[str, list[tuple[str, str]]] = {}
    for match in matches(study):
        for method in methods:
            there = [c for c in best if c.group.row == method and match.title.removeprefix("at ") in c.match]
            if not (there and there[0].is_known):
                reasons.setdefault(_reason(there, plan), []).append((match.title, method))
    return [
        f"There is no comparison of {labels.heading(plan)} with the best constant batch {_where(places, len(methods))}: {reason}."
        for reason, places in reasons.items()
    ]


def _reason(there: Sequence[Claim], plan: str) -> str:
    if not there:
        return f"{labels.heading(plan)} and two constant batch sizes were not run there"
    first = labels.sizes(there[0].group.config)[0]
    if not any(labels.sizes(each.config)[0] == first for each in there[0].baselines):
        return f"its first batch size, {first}, was not run as a constant batch there"
    return "the plan and all constant batches share no seed"


def _partly(base: Group, best: Sequence[Claim]) -> list[str]:
    """Returns which batch sizes are missing among the constant batches."""
    without: dict[str, list[str]] = {}
    for claim in best:
        if claim.is_known and (sizes := lacking(claim, base)):
            without.setdefault(listed([str(size) for size in sizes]), []).append(f"{claim.group.name} {claim.match}")
    return [f"The constant batches do not include {sizes} for {listed(where)}." for sizes, where in without.items()]


def _where(places: Iterable[tuple[str, str]], methods: int) -> str:
    """Returns `at equal updates`, or `at equal updates (SGD)` if that does not hold for all methods."""
    by_match: dict[str, list[str]] = {}
    for title, method in places:
        by_match.setdefault(title, []).append(method)
    return listed([t if len(inside) == methods else f"{t} ({listed(inside)})" for t, inside in by_match.items()])
