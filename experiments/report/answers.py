"""The answers of a study: a matrix of the paper's claims, sentences that sum it up, and what the study cannot show."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from experiments.cli.tables import Table, listed
from experiments.report.claims import BEST, DECAY, GROWTH, PLAN, REVERSED, RIVAL, Claim, lacking
from experiments.report.groups import Group, Study, named_value
from experiments.report.matches import reference
from experiments.report.paired import FEWEST_SEEDS, TEST_ERROR, Answer, Difference, Measure, direct_pairs, measures_of
from experiments.report.study_tables import method_pairs, pairs_of
from experiments.study import labels

_BY_CHANCE = 0.05  # of intervals exclude 0 if there is no effect at all
_PROBLEM = ("dataset", "model", "train_examples", "label_noise", "validation")


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
        return f"{self.symbol} {self.effect}{f' ({self.interval})' if self.interval else ''}; {self.note}"


@dataclass(frozen=True)
class Column:
    """A column of the matrix: one claim, for several methods.

    Attributes:
      heading: the comparison, as `A − B`.
      pair: A and B in words.
      claims: the claims by method.
      rank: the place of its sentence in the headline, from 1; 0: it has none.
    """

    heading: str
    pair: tuple[str, str]
    claims: dict[str, Claim]
    rank: int = 0


def cell_of(found: Difference | None, note: str = "") -> Cell | str:
    """Returns a cell with a difference; a dash if it is unknown."""
    if found is None:
        return "–"
    notes = [_seeds(found.seeds), note, found.obstacle]
    return Cell(
        found.answer.value, found.measure.effect(found), found.measure.interval(found), "; ".join(filter(None, notes))
    )


def columns_of(claims: Sequence[Claim]) -> list[Column]:
    """Returns the columns of the matrix: growth, other growing plans, and what falls during training."""
    other = [claim for claim in claims if labels.strategy(claim.group.config) in labels.OTHER_GROWTH]
    papers = [claim for claim in claims if claim.kind in (GROWTH, BEST, REVERSED) and claim not in other]
    columns = _growth_columns(papers)
    for name in dict.fromkeys(claim.group.column for claim in other):
        own = [claim for claim in other if claim.group.column == name]
        best, planned = _of(own, BEST, "equal epochs"), _of(own, PLAN, "equal epochs")
        grown = f"{labels.OTHER_GROWTH[labels.strategy(own[0].group.config)]} ({name})"
        columns.append(Column(f"{name} − best constant batch", (grown, _best(best)), best, rank=2))
        columns.append(Column(f"{name} − increasing (+B)", (grown, "the increasing plan"), planned))
    for kind in (DECAY, RIVAL):
        for name in dict.fromkeys(claim.group.column for claim in claims if claim.kind == kind):
            own = [claim for claim in claims if claim.kind == kind and claim.group.column == name]
            baseline = labels.heading(own[0].baselines[0].column)
            pair = (f"a falling learning rate ({name})", "a constant one")
            heading = f"{labels.heading(name)} − {baseline}"
            columns.append(Column(heading, pair, _of(own, kind, own[0].match), rank=4 if kind == DECAY else 0))
    return [column for column in columns if column.claims or column.heading.startswith("increasing")]


def matrix(study: Study, columns: Sequence[Column], measure: Measure) -> Table:
    """Returns the matrix for a measure: a row per method, a column per claim."""
    methods = [row for row in study.rows if any(row in column.claims for column in columns)]
    rows = [(row, *(_claim_cell(column.claims.get(row), measure) for column in columns)) for row in methods]
    title = f"Ratios of {measure.name}" if measure.is_ratio else f"Differences in {measure.name}"
    return Table([("method", *(column.heading for column in columns)), *rows], title=title)


def claim_table(claims: Sequence[Claim], measures: Sequence[Measure]) -> Table:
    """Returns a row per claim that is known, and a column per measure."""
    known = [claim for claim in claims if claim.is_known]
    rows = [(_compared(claim), claim.group.row, *(_claim_cell(claim, each) for each in measures)) for claim in known]
    heading = ("A − B", "method", *(measure.name for measure in measures))
    pairs = [pair for claim in known for pair in claim.found.values() if pair is not None]
    return Table([heading, *rows], f"{multiplicity(pairs)} Ratios are of geometric means.".strip())


def pair_table(study: Study) -> Table:
    """Returns the differences of groups that differ only in strategy or only in method, for a study of few groups."""
    pairs = [] if study.is_large else direct_pairs(study.groups)
    rows = [(f"{pair.first.name} − {pair.second.name}", cell_of(pair)) for pair in pairs]
    return Table([("A − B", "test error"), *rows], multiplicity(pairs), "Differences in test error")


def method_table(study: Study) -> Table:
    """Returns the differences in test error between methods: a row per strategy and match, a column per pair."""
    found = method_pairs(study)
    rows = [(name, *map(cell_of, row)) for name, row in found.items()]
    table = [("A − B", *(f"{first} − {second}" for first, second in pairs_of(study))), *rows]
    shown = table if len(table) > 2 or len(table[0]) < 5 else list(zip(*table, strict=True))  # many methods: a row each
    pairs = [pair for row in found.values() for pair in row if pair is not None]
    return Table(shown, multiplicity(pairs), "Differences in test error")


def variant_of(study: Study, found: Sequence[Study]) -> tuple[Study | None, list[tuple[Group, Group]]]:
    """Returns the study before it in `found` with the same examples and most equal settings, and equal cells."""
    values = dict(study.part)
    before = [s for s in found[: found.index(study)] if all(dict(s.part)[n] == values[n] for n in _PROBLEM)]
    base = min(before, key=lambda each: len(set(study.part) - set(each.part)), default=None)
    others = {(group.row, group.column): group for group in (base.groups if base else [])}
    return base, [(g, others[place]) for g in study.groups if (place := (g.row, g.column)) in others]


def variant_table(study: Study, found: Sequence[Study]) -> Table:
    """Returns the differences of a study from `variant_of` it."""
    base, pairs = variant_of(study, found)
    if base is None:
        return Table([])
    rows = [(one.name, *(cell_of(m.compare(one, other)) for m in measures_of(study))) for one, other in pairs]
    settings = listed([named_value(name, value) for name, value in study.part if (name, value) not in base.part])
    heading = ("group", *(measure.name for measure in measures_of(study)))
    return Table([heading, *rows], f"This part minus {base.title}. This part has {settings}.")


def subtitle(study: Study, columns: Sequence[Column]) -> str:
    """Returns the question, the number of runs, the methods and the seeds."""
    question = "Does a growing batch, or a falling learning rate, lower the test error? After the paper of Harada and "
    question = f"{question}Iiduka, arXiv 2409.09984. " if columns else ""
    seeds = study.seeds
    is_range = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
    over = f"{seeds[0]} to {seeds[-1]}" if is_range else listed(list(map(str, seeds)))
    return f"{question}{len(study.runs)} runs of {listed(study.rows)}; {_seeds(len(seeds))}: {over}."


def sentences(study: Study, columns: Sequence[Column]) -> list[str]:
    """Returns the answers on the test error in sentences, or the best and the worst group if there are no claims."""
    ranked = sorted((column for column in columns if column.rank and column.claims), key=lambda column: column.rank)
    found = [_sentence(column) for column in ranked]
    if found:
        return found
    means = {group.name: 100 * float(group.values("test_error").mean()) for group in study.groups}
    low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    worst = f" {high} has the highest one, {means[high]:.2f}%." if len(means) > 1 else ""
    over = f", mean over {_seeds(len(study.seeds))}" if len(study.seeds) > 1 else ", one seed"
    pairs = [pair for row in method_pairs(study).values() for pair in row if pair is not None]
    words = f"{low} has the lowest test error, {means[low]:.2f}%{over}.{worst}"
    return [words, *filter(None, [multiplicity(pairs)])]


def limits(study: Study, claims: Sequence[Claim], columns: Sequence[Column], *, is_planned: bool) -> list[str]:
    """Returns what the study cannot show, in sentences; `is_planned`: whether comparisons were planned before it."""
    found = [pair for column in columns for claim in column.claims.values() if (pair := claim.found[TEST_ERROR.title])]
    count = len(study.seeds)
    few = f"An answer needs at least {FEWEST_SEEDS} seeds, and this study has {count}." if count < FEWEST_SEEDS else ""
    tuned = "" if study.chosen else ", with one learning rate and one radius for all strategies"
    chance = (
        f"No comparison was planned before the first run. Of {len(found)} intervals of the test error, about "
        f"{_BY_CHANCE * len(found):.2g} would exclude 0 by chance if there were no effect at all."
    )
    problem = f"{dict(study.part)['model']} on {dict(study.part)['dataset']}"
    words = [
        few,
        _resolution(found, count),
        *_controls(study, claims),
        "" if is_planned or not found else chance,
        f"All runs are of {problem}{tuned}. Other problems and settings may have other answers.",
    ]
    return [each for each in words if each]


def multiplicity(found: Sequence[Difference]) -> str:
    """Returns how many intervals exclude 0, and how many would by chance."""
    count = sum(each.low < each.high for each in found)
    clear = sum(each.answer is not Answer.OPEN for each in found)
    words = (
        f"Differences are shown in {clear} of {count} comparisons: their 95% intervals exclude 0. Without any effect, "
    )
    return f"{words}about {_BY_CHANCE * count:.2g} would do so by chance." if count else ""


def _growth_columns(claims: Sequence[Claim]) -> list[Column]:
    if not claims:
        return []
    papers, best = _of(claims, GROWTH), _of(claims, BEST, "equal epochs")
    constant = labels.heading(next(iter(papers.values())).baselines[0].column) if papers else "the paper's constant"
    grown, growing = labels.heading("increasing"), "a growing batch"
    equal_updates, reversed_plan = _of(claims, BEST, "equal updates"), _of(claims, REVERSED, "equal epochs")
    size = constant.removeprefix("constant").strip() if papers else ""
    papers_pair = (growing, f"the paper's constant batch{f' of {size}' if size else ''}")
    return [
        Column(f"{grown} − {constant}, as in the paper", papers_pair, papers, rank=3),
        Column(f"{grown} − best constant batch", (growing, _best(best)), best, rank=1),
        Column(f"{grown} − reversed plan", (growing, "the same plan reversed"), reversed_plan),
        Column(f"{grown} − best constant batch, at equal updates", (growing, _best(equal_updates)), equal_updates),
    ]


def _of(claims: Iterable[Claim], kind: str, match: str = "") -> dict[str, Claim]:
    found: dict[str, Claim] = {}
    for claim in claims:
        if claim.kind == kind and match in claim.match:
            found.setdefault(claim.group.row, claim)
    return found


def _best(claims: dict[str, Claim]) -> str:
    most = max((claim.candidates for claim in claims.values()), default=0)
    return f"the best of {most} constant batches"


def _compared(claim: Claim) -> str:
    baseline = f"best of {claim.candidates} constant batches"
    baseline = baseline if claim.kind == BEST else labels.heading(claim.baselines[0].column)
    return ", ".join(filter(None, [f"{labels.heading(claim.group.column)} − {baseline}", claim.match]))


def _claim_cell(claim: Claim | None, measure: Measure) -> Cell | str:
    found = None if claim is None else claim.found[measure.title]
    if claim is None or found is None or claim.kind != BEST:
        return cell_of(found)
    return cell_of(found, f"against {labels.heading(found.second.column)}, the best of {claim.candidates}")


def _sentence(column: Column) -> str:
    """Returns the answers of a column: which of the two has the lower test error, with which methods."""
    found = {method: claim.found[TEST_ERROR.title] for method, claim in column.claims.items()}
    by_words: dict[str, list[str]] = {}
    for method, pair in found.items():
        words, has_effect = _in_words(pair, "{a}", "{b}")
        effect = f" ({pair.measure.effect(pair)})" if pair and has_effect else ""
        by_words.setdefault(words, []).append(f"{method}{effect}")
    first, second = column.pair
    parts = [words.format(a=first, b=second, methods=listed(methods)) for words, methods in by_words.items()]
    seeds = sorted({pair.seeds for pair in found.values() if pair is not None})
    ends = " to ".join(str(count) for count in dict.fromkeys((min(seeds), max(seeds)))) if seeds else ""
    over = f" ({ends} seed{'s' * (ends != '1')})" if seeds else ""
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}{over}."


def _in_words(found: Difference | None, first: str, second: str) -> tuple[str, bool]:
    """Returns an answer in words, and whether the effect belongs to it."""
    if found is None:
        return f"{first} cannot be compared with {second} with {{methods}}, since a control is missing", False
    if found.obstacle:
        return f"whether {first} is better than {second} has no answer with {{methods}}: {found.obstacle}", False
    if found.answer is Answer.OPEN:
        return f"no difference in test error between {first} and {second} is shown with {{methods}}", False
    word = "lower" if found.answer is Answer.YES else "higher"
    return f"{first} has a {word} test error than {second} with {{methods}}", True


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count != 1)}"


def _resolution(found: Sequence[Difference], seeds: int) -> str:
    """Returns how large an effect must be to be shown."""
    widths = [(each.high - each.low) / 2 for each in found if each.answer is Answer.OPEN and not each.obstacle]
    if not widths:
        return ""
    return (
        f"A “?” does not mean that there is no effect. With {_seeds(seeds)}, half of the intervals with a “?” extend "
        f"more than {statistics.median(widths):.2g} points to either side of the mean: an effect of that size can be "
        "missed."
    )


def _controls(study: Study, claims: Sequence[Claim]) -> list[str]:
    """Returns what the comparisons with the best constant batch lack."""
    base, best = reference(study), [claim for claim in claims if claim.kind == BEST]
    if base is None:
        return []
    if not any(claim.is_known for claim in best):
        first = labels.sizes(base.config)[0]
        words = f"Whether growth itself helps cannot be shown without two constant batch sizes at equal length, {first}"
        return [f"{words} among them: an effect of growth may be one of the small first batches."]
    missing = dict.fromkeys(size for claim in best if claim.is_known for size in lacking(claim, base))
    sizes = f" In at least one comparison, it lacks the batch size {' or '.join(map(str, missing))}." if missing else ""
    return [f"The best constant batch is selected on the same runs that it is compared with, which favours it.{sizes}"]
