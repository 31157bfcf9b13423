"""The answers of a study as tables: matrices of the claims, all comparisons, and differences between methods."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from experiments.cli.tables import Table, counted, listed
from experiments.report.claims import Claim, Kind
from experiments.report.groups import Group, Study, named_value
from experiments.report.matches import EPOCHS, UPDATES
from experiments.report.paired import TEST_ERROR, Answer, Difference, Measure, direct_pairs, measures_of
from experiments.report.study_tables import method_pairs, pairs_of
from experiments.study import labels

PAPERS_RANK = 2  # of the comparison of growth as in the paper
_BEST = "{best} constant batch"
BY_CHANCE = 0.05  # of intervals exclude 0 if there is no effect at all
_PROBLEM = ("dataset", "model", "train_examples", "label_noise", "validation")


@dataclass(frozen=True)
class Entry:
    """An entry of a table, with an answer.

    Attributes:
      symbol: the sign of the answer.
      effect: the mean difference.
      interval: its 95% interval; empty if it is unknown.
      note: the number of seeds if it is unusual, and what else a reader has to know.
    """

    symbol: str
    effect: str
    interval: str
    note: str

    def __str__(self) -> str:
        """The entry on one line."""
        interval = f" ({self.interval})" if self.interval else ""
        return f"{self.symbol} {self.effect}{interval}{'; ' * bool(self.note)}{self.note}"


@dataclass(frozen=True)
class Column:
    """A column of the matrix: one claim, for several methods.

    Attributes:
      names: the names of the two, A and B, that are compared; `{best}` stands for `Measure.best`.
      words: A and B in words.
      claims: the claims by method.
      rank: the place of its sentence in the headline, from 1; 0: it has none.
      is_papers: whether the paper makes this comparison, or it is a control of one that the paper makes.
    """

    names: tuple[str, str]
    words: tuple[str, str]
    claims: dict[str, Claim]
    rank: int = 0
    is_papers: bool = True

    def heading(self, measure: Measure = TEST_ERROR) -> str:
        """Returns the comparison: `A − B`, or `A ÷ B` of a ratio."""
        return f" {'÷' if measure.is_ratio else '−'} ".join(self.names).format(best=measure.best)


def entry_of(found: Difference | None, note: str = "", usual: int = 0) -> Entry | str:
    """Returns the entry of a difference; a dash if it is unknown. The number of seeds is omitted if it is `usual`."""
    if found is None:
        return "–"
    notes = ["" if found.seeds == usual else counted("seed", found.seeds), note, found.obstacle]
    effect, interval = found.measure.effect(found), found.measure.interval(found)
    return Entry(found.answer.value, effect, interval, "; ".join(filter(None, notes)))


def columns_of(claims: Sequence[Claim]) -> list[Column]:
    """Returns the columns of the matrix: growth, other growing plans, and what falls during training."""
    other = [claim for claim in claims if labels.strategy(claim.group.config) in labels.OTHER_GROWTH]
    papers = [claim for claim in claims if claim.kind in (Kind.GROWTH, Kind.BEST, Kind.REVERSED)]
    found = []
    for name in dict.fromkeys(claim.group.column for claim in other):
        same = [claim for claim in other if claim.group.column == name]
        best, planned = _of(same, Kind.BEST, EPOCHS), _of(same, Kind.PLAN, EPOCHS)
        grown = f"{labels.OTHER_GROWTH[labels.strategy(same[0].group.config)]} ({name})"
        names, words = (name, labels.heading("increasing")), (grown, "the increasing plan")
        found += [Column((name, _BEST), (grown, f"{_best(best)}, {EPOCHS}"), best, 4, is_papers=False)]
        found += [Column(names, words, planned, is_papers=False)]
    for kind in (Kind.DECAY, Kind.RIVAL):
        for name in dict.fromkeys(claim.group.column for claim in claims if claim.kind is kind):
            same = [claim for claim in claims if claim.kind is kind and claim.group.column == name]
            names, is_papers = (labels.heading(name), labels.heading(same[0].baselines[0].column)), kind is Kind.DECAY
            words = (f"a falling learning rate ({name})", "a constant one")
            found += [Column(names, words, _of(same, kind, same[0].matches[0]), 5 * is_papers, is_papers)]
    growth = _growth_columns([claim for claim in papers if claim not in other])
    return [*growth, *(column for column in found if column.claims)]


def matrices(study: Study, columns: Sequence[Column], measure: Measure) -> list[Table]:
    """Returns the answers for a measure: a row per method, and a column per claim; first the paper's claims."""
    what = f"Ratios of {measure.name}" if measure.is_ratio else f"Differences in {measure.name}"
    parts = {what: True, f"{what}: other comparisons": False}
    return [
        _matrix(study, inside, measure, title)
        for title, is_papers in parts.items()
        if (inside := [column for column in columns if column.is_papers == is_papers])
    ]


def _matrix(study: Study, columns: Sequence[Column], measure: Measure, title: str) -> Table:
    methods, usual = [row for row in study.rows if any(row in column.claims for column in columns)], len(study.seeds)
    rows = [(row, *(_claim_entry(column.claims.get(row), measure, usual) for column in columns)) for row in methods]
    headings = [column.heading(measure) for column in columns]
    caption = "A ratio below 1: the first of the two is flatter." if measure.is_ratio else ""
    return Table([("method", *headings), *rows], caption, title)


def claim_table(claims: Sequence[Claim], measures: Sequence[Measure]) -> Table:
    """Returns a row per claim that is known, and a column per measure."""
    known = [claim for claim in claims if claim.is_known]
    rows = [(_compared(claim), claim.group.row, *(_claim_entry(claim, each) for each in measures)) for claim in known]
    heading = ("A − B", "method", *(measure.name for measure in measures))
    pairs = [pair for claim in known for pair in claim.found.values() if pair is not None]
    means = " Ratios are of geometric means." if len(measures) > 1 else ""
    return Table([heading, *rows], f"{multiplicity(pairs)}{means}".strip())


def pair_table(study: Study) -> Table:
    """Returns the differences of groups that differ only in strategy or only in method, for a study of few groups."""
    pairs = [] if study.is_large else direct_pairs(study.groups)
    rows = [(f"{pair.first.name} − {pair.second.name}", entry_of(pair)) for pair in pairs]
    return Table([("A − B", "test error"), *rows], multiplicity(pairs), "Differences in test error")


def method_table(study: Study) -> Table:
    """Returns the differences in test error between methods: a row per strategy and match, a column per pair."""
    found = method_pairs(study)
    rows = [(name, *map(entry_of, row)) for name, row in found.items()]
    table = [("A − B", *(f"{first} − {second}" for first, second in pairs_of(study))), *rows]
    shown = table if len(table) > 2 or len(table[0]) < 5 else list(zip(*table, strict=True))  # many methods: a row each
    pairs = [pair for row in found.values() for pair in row if pair is not None]
    return Table(shown, multiplicity(pairs), "Differences in test error")


def variant_of(study: Study, found: Sequence[Study]) -> tuple[Study | None, list[tuple[Group, Group]]]:
    """Returns the earlier study on the same examples that differs in fewest settings, and the pairs of groups."""
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
    rows = [(one.name, *(entry_of(m.compare(one, other)) for m in measures_of(study))) for one, other in pairs]
    settings = listed([named_value(name, value) for name, value in study.part if (name, value) not in base.part])
    heading = ("group", *(measure.name for measure in measures_of(study)))
    return Table([heading, *rows], f"This part minus {base.title}. This part has {settings}.")


def multiplicity(found: Sequence[Difference]) -> str:
    """Returns how many intervals exclude 0, and how many would by chance."""
    count = sum(each.low < each.high for each in found)
    clear = sum(each.answer is not Answer.OPEN for each in found)
    zero = "0, or 1 for a ratio" if any(each.measure.is_ratio for each in found) else "0"
    words = f"Differences are shown in {clear} of {counted('comparison', count)}: their 95% intervals exclude {zero}."
    return f"{words} Without any effect, about {BY_CHANCE * count:.2g} would do so by chance." if count else ""


def _growth_columns(claims: Sequence[Claim]) -> list[Column]:
    if not claims:
        return []
    papers, best = _of(claims, Kind.GROWTH, EPOCHS), _of(claims, Kind.BEST, EPOCHS)
    constant = labels.heading(next(iter(papers.values())).baselines[0].column) if papers else "the paper's constant"
    grown, growing = labels.heading("increasing"), "a growing batch"
    reversed_plan, best_then = _of(claims, Kind.REVERSED, EPOCHS), _of(claims, Kind.BEST, UPDATES)
    papers_then = _of([claim for claim in claims if EPOCHS not in claim.matches], Kind.GROWTH, UPDATES)
    size = constant.removeprefix("constant").strip() if papers else ""
    papers_batch = f"the paper's constant batch{f' of {size}' if size else ''}"
    papers_words = growing, f"{papers_batch}, {EPOCHS}"
    found = [
        Column((grown, f"{constant}, as in the paper"), papers_words, papers, PAPERS_RANK),
        Column((grown, _BEST), (growing, f"{_best(best)}, {EPOCHS}"), best, rank=1),
        Column((grown, "reversed plan"), (growing, "the same plan reversed"), reversed_plan),
    ]
    if papers_then:
        words = growing, f"{papers_batch}, {UPDATES}"
        found.append(Column((grown, f"{constant}, {UPDATES}"), words, papers_then, rank=3))
    if not papers_then or any(claim.is_known for claim in best_then.values()):
        words = growing, f"{_best(best_then)}, {UPDATES}"
        found.append(Column((grown, f"{_BEST}, {UPDATES}"), words, best_then, rank=3))
    return found


def _of(claims: Iterable[Claim], kind: Kind, match: str) -> dict[str, Claim]:
    """Returns the claims of a kind that a match has, by method."""
    found: dict[str, Claim] = {}
    for claim in claims:
        if claim.kind is kind and match in claim.matches:
            found.setdefault(claim.group.row, claim)
    return found


def _best(claims: dict[str, Claim]) -> str:
    counts = sorted({claim.candidates for claim in claims.values()}) or [0]
    return f"the {{best}} of {' or '.join(map(str, counts))} constant batches"


def _compared(claim: Claim) -> str:
    baseline = f"best of {claim.candidates} constant batches"
    baseline = baseline if claim.kind is Kind.BEST else labels.heading(claim.baselines[0].column)
    return ", ".join(filter(None, [f"{labels.heading(claim.group.column)} − {baseline}", claim.match]))


def _claim_entry(claim: Claim | None, measure: Measure, usual: int = 0) -> Entry | str:
    found = None if claim is None else claim.found[measure.title]
    if claim is None or found is None or claim.kind is not Kind.BEST:
        return entry_of(found, usual=usual)
    return entry_of(
        found, f"against {labels.heading(found.second.column)}, the {measure.best} of {claim.candidates}", usual
    )
