"""What a report says of one study, block by block, before it is put on a page."""

from pathlib import Path
from typing import NamedTuple

from experiments.reporting import chosen, drawn, errors, published, sharpness
from experiments.reporting.claims import claim_rows, claims
from experiments.reporting.drawing import Picture
from experiments.reporting.groups import Study
from experiments.reporting.matches import tables
from experiments.reporting.method_pairs import method_pair_rows
from experiments.reporting.paired import Difference, differences
from experiments.reporting.tables import difference_rows, run_rows, setting_rows
from experiments.reporting.variants import variant_rows
from experiments.reporting.verdicts import verdicts
from experiments.tables import Rows

FEW_GROUPS = 12  # so many are compared pair by pair
DIRECT = "Of the pairs that differ in strategy alone, or in method alone."


class Block(NamedTuple):
    """A part of a section.

    Attributes:
      heading: what it is about; empty for the first one.
      tables: one below another, each as rows.
      words: paragraphs below them.
      picture: below these.
      is_printed: whether the terminal has it, too.
      is_folded: whether it is long: the page has it folded, and the document not at all.
    """

    heading: str
    tables: list[Rows] = []  # noqa: RUF012 - never changed
    words: list[str] = []  # noqa: RUF012
    picture: Picture | None = None
    is_printed: bool = False
    is_folded: bool = False


class Section(NamedTuple):
    """What a report says of one study.

    Attributes:
      title: the model and the data set, and what else its runs share.
      blocks: in the order in which they are read.
    """

    title: str
    blocks: list[Block]


def write_section(study: Study, folder: Path, base: Study | None = None, *, list_runs: bool = True) -> Section:
    """Put together what there is to say of a study, its pictures drawn into `folder`.

    Args:
      study: what is reported.
      folder: for the pictures.
      base: the study of the same model and data set that it is compared with; None for that one itself.
      list_runs: whether the document has every run, too.
    """
    draw = drawn.pictures_of if base is None else drawn.main_pictures_of
    blocks = [
        *_errors(study),
        *_claims(study),
        *_published(study),
        *(_variant(study, base) if base else []),
        *(_differences(study) if base is None or is_large(study) else []),
        *_sharpness(study),
        *(Block(each.title, words=[each.caption], picture=each) for each in draw(study, folder)),
        Block("Settings", [setting_rows(study)]),
        Block("Runs", [run_rows(study)], is_folded=not list_runs),
    ]
    return Section(study.title, blocks)


def is_large(study: Study) -> bool:
    """Whether it has too many groups to compare each with each."""
    return len(study.groups) > FEW_GROUPS


def _errors(study: Study) -> list[Block]:
    blocks = [
        Block(match.title.capitalize(), [errors.error_rows(match, study)], is_printed=True) for match in tables(study)
    ]
    last = blocks[-1]._replace(words=[errors.caption(study)])
    given = [Block("What was chosen", [rows], [chosen.REMARK])] if len(rows := chosen.chosen_rows(study)) > 1 else []
    return [*blocks[:-1], last, *given]


def _claims(study: Study) -> list[Block]:
    found = claims(study)
    words = verdicts(study, found)
    rows = claim_rows(study, found)
    told = [Block("The paper's claims", words=words, is_printed=True)] if words else []
    return told + ([Block("The claims in figures", [rows], is_printed=not is_large(study))] if len(rows) > 1 else [])


def _published(study: Study) -> list[Block]:
    rows = published.published_rows(study)
    return [Block("Beside the paper's figures", [rows], [published.REMARK], is_printed=True)] if len(rows) > 1 else []


def _variant(study: Study, base: Study) -> list[Block]:
    rows = variant_rows(study, base)
    return [Block(f"Less {base.title}, all else equal", [rows])] if len(rows) > 1 else []


def _differences(study: Study) -> list[Block]:
    if is_large(study):
        rows = method_pair_rows(study)
        return [Block("Methods against one another", [rows])] if len(rows[0]) > 1 and len(rows) > 1 else []
    pairs = differences(study.groups)
    direct = [pair for pair in pairs if pair.is_direct]
    others = [pair for pair in pairs if not pair.is_direct]
    blocks = [
        Block("Which differences hold", [difference_rows(direct)] if direct else [], [_verdict(pairs)], is_printed=True)
    ]
    if others:
        blocks.append(Block("Differences between the other pairs", [difference_rows(others)]))
    return blocks


def _verdict(pairs: list[Difference]) -> str:
    if not pairs:
        return "Nothing can be said of differences: no two groups of runs share two seeds."
    holding = sum(pair.verdict == "holds" for pair in pairs)
    return (
        f"{DIRECT} Differences that hold: {holding} of all {len(pairs)}. Runs of one seed share initialisation, split "
        "and data order, so they are compared seed by seed; a difference holds where the 95% t interval of its mean "
        f"excludes 0. Each is taken by itself: of {len(pairs)} true zeros about {0.05 * len(pairs):.2g} would pass by "
        "chance."
    )


def _sharpness(study: Study) -> list[Block]:
    ways = list(sharpness.ways_of(study).items())
    if not ways:
        return []
    way, radii = ways[0]
    words = [sharpness.caption(study, way), sharpness.orderings(study, way, radii)]
    rows = sharpness.radius_rows(study, way, radii)
    first = Block("Sharpness", [rows], list(filter(None, words)), is_printed=not is_large(study))
    others = [sharpness.radius_rows(study, *each) for each in ways[1:]]
    more = Block("Sharpness measured in other ways", others, is_folded=is_large(study), is_printed=not is_large(study))
    return [first, more] if others else [first]
