"""The sentences of a report: its subtitle, the headline, and what the study does not show."""

import statistics
from collections.abc import Sequence
from typing import TypeGuard

from experiments.cli.tables import counted, listed
from experiments.report.answers import BY_CHANCE, PAPERS_RANK, Column, multiplicity
from experiments.report.claims import Claim, Kind, lacking
from experiments.report.groups import Study
from experiments.report.matches import reference
from experiments.report.paired import FEWEST_SEEDS, TEST_ERROR, Answer, Difference, Measure
from experiments.report.planned_contrasts import INCONCLUSIVE, Outcome, contrast_sentence
from experiments.report.study_tables import method_pairs
from experiments.study import labels

_WORDS = {Answer.YES: "lower", Answer.NO: "higher", Answer.OPEN: INCONCLUSIVE}
_INTERVAL = "the 95% interval of the mean difference contains zero, or one for a ratio"
_INCONCLUSIVE = f"Inconclusive: {_INTERVAL}."
_INCONCLUSIVE_PLANNED = f"Inconclusive: planned, the adjusted p-value is 0.05 or more; exploratory, {_INTERVAL}."


def subtitle(study: Study, columns: Sequence[Column]) -> str:
    """Returns the question, the runs with their methods and seeds, and the sizes of the data and of the network."""
    question = "Does a growing batch, or a falling learning rate, lower the test error? After the paper of Harada and "
    question = f"{question}Iiduka, arXiv 2409.09984. " if columns else ""
    seeds = study.seeds
    is_range = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
    over = f"{seeds[0]} to {seeds[-1]}" if is_range else listed(list(map(str, seeds)))
    runs = f"{len(study.runs)} runs of {listed(study.rows)}; {counted('seed', len(seeds))}: {over}."
    return f"{question}{runs} {_sizes(study)}".strip()


def sentences(
    study: Study, columns: Sequence[Column], measures: Sequence[Measure], planned: Sequence[Outcome] = ()
) -> list[str]:
    """Returns the answers in sentences, or the best and the worst group if there are no claims.

    The sharpness at each radius has one sentence, on the first of the comparisons.

    Args:
      study: the study.
      columns: the comparisons.
      measures: the test error, and the sharpness at each radius.
      planned: the planned contrasts, whose sentences replace those of the test error, except the paper's.
    """
    ranked = sorted((column for column in columns if column.rank and column.claims), key=lambda column: column.rank)
    said, is_open = list(map(contrast_sentence, planned)), any(each.verdict == INCONCLUSIVE for each in planned)
    note = [_INCONCLUSIVE_PLANNED if planned else _INCONCLUSIVE]
    if ranked:
        stated = [(column, TEST_ERROR) for column in ranked if not planned or column.rank == PAPERS_RANK]
        stated += [(ranked[0], each) for each in measures[1:]]
        words = [_sentence(*each, is_exploratory=bool(planned)) for each in stated]
        found = [claim.found[measure.title] for column, measure in stated for claim in column.claims.values()]
        is_open |= any(each is not None and each.is_inconclusive for each in found)
        return [*said, *words, *(note if is_open else [])]
    means = {group.name: 100 * float(group.values("test_error").mean()) for group in study.groups}
    low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    worst = f" {high} has the highest one, {means[high]:.2f}%." if len(means) > 1 else ""
    over = f", mean over {counted('seed', len(study.seeds))}" if len(study.seeds) > 1 else ", one seed"
    pairs = [pair for row in method_pairs(study).values() for pair in row if pair is not None]
    words = f"{'Exploratory: ' if planned else ''}{low} has the lowest test error, {means[low]:.2f}%{over}.{worst}"
    return [*said, words, *filter(None, [multiplicity(pairs)]), *(note if is_open else [])]


def limits(study: Study, claims: Sequence[Claim], columns: Sequence[Column], *, is_planned: bool) -> list[str]:
    """Returns what the study cannot show, in sentences; `is_planned`: whether comparisons were planned before it."""
    pairs = [claim.found[TEST_ERROR.title] for column in columns for claim in column.claims.values()]
    found = [pair for pair in pairs if pair is not None and pair.low < pair.high]
    count = len(study.seeds)
    few = f"An answer needs at least {FEWEST_SEEDS} seeds, and this study has {count}." if count < FEWEST_SEEDS else ""
    shared = "The strategies of a method share one learning rate and one radius, unless a name states another. "
    chance = (
        f"No comparison was planned before the first run. Of {counted('interval', len(found))} of the test error, "
        f"about {BY_CHANCE * len(found):.2g} would exclude 0 by chance if there were no effect at all."
    )
    problem = f"{dict(study.part)['model']} on {dict(study.part)['dataset']}"
    words = [
        few,
        _resolution(found, count),
        *_controls(study, claims),
        "" if is_planned or not found else chance,
        f"All runs are of {problem}. {'' if study.chosen else shared}Other problems and settings may differ.",
    ]
    return [each for each in words if each]


def _sizes(study: Study) -> str:
    """Returns the number of training images and of parameters, if all runs have the same."""
    problems = {config.problem for config in study.runs["config"]}
    images = {problem.num_examples(problem.stored_examples) for problem in problems}
    counts = {int(n) for group in study.groups for n in group.values("parameters") if n > 0}
    words = [f"{n:,} training images" for n in images] if len(images) == 1 else []
    words += [f"{n:,} parameters" for n in counts] if len(counts) == 1 else []
    return f"{' and '.join(words).capitalize()}." if words else ""


def _sentence(column: Column, measure: Measure, *, is_exploratory: bool) -> str:
    """Returns the answers of a column, first those that are shown: which of the two has the lower value, by method."""
    by_words: dict[str, list[str]] = {}
    answers = [(method, claim.found[measure.title]) for method, claim in column.claims.items()]
    for method, found in sorted(answers, key=lambda answer: not _is_shown(answer[1])):
        effect = f" ({measure.effect(found)}, {measure.interval(found)})" if _is_shown(found) else ""
        by_words.setdefault(_in_words(found), []).append(f"{method}{effect}")
    parts = [f"{words} with {listed(methods)}" for words, methods in by_words.items()]
    name = f"Exploratory: {measure.name}" if is_exploratory else f"{measure.name[0].upper()}{measure.name[1:]}"
    one, other = (words.format(best=measure.best) for words in column.words)
    return f"{name}, {one} compared with {other}: {'; '.join(parts)}."


def _is_shown(found: Difference | None) -> TypeGuard[Difference]:
    return found is not None and found.answer is not Answer.OPEN


def _in_words(found: Difference | None) -> str:
    """Returns an answer in words."""
    if found is None or found.obstacle:
        return f"no answer ({found.obstacle if found else 'a control is missing'})"
    return _WORDS[found.answer]


def _resolution(found: Sequence[Difference], seeds: int) -> str:
    """Returns how large an effect must be to be shown."""
    widths = [(each.high - each.low) / 2 for each in found if each.is_inconclusive]
    if not widths:
        return ""
    return (
        f"A “?” does not mean that there is no effect. With {counted('seed', seeds)}, an effect of about "
        f"{statistics.median(widths):.2g} points can be missed: the median half-width of the inconclusive intervals."
    )


def _controls(study: Study, claims: Sequence[Claim]) -> list[str]:
    """Returns what the comparisons with the best constant batch lack."""
    base, best = reference(study), [claim for claim in claims if claim.kind is Kind.BEST]
    if base is None:
        return []
    if not any(claim.is_known for claim in best):
        first = labels.sizes(base.config)[0]
        words = f"Whether growth itself helps cannot be shown without two constant batch sizes at equal length, {first}"
        return [f"{words} among them: an effect of growth may be one of the small first batches."]
    missing = dict.fromkeys(size for claim in best if claim.is_known for size in lacking(claim, base))
    lack = f" At least one comparison lacks a constant batch of {' or '.join(map(str, sorted(missing)))}."
    chosen = "The best constant batch is selected on the same runs that it is compared with, which favours it."
    return [f"{chosen}{lack if missing else ''}"]
