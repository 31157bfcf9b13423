"""What a report says of one study, block by block, before it is put on a page."""

from pathlib import Path
from typing import NamedTuple

from experiments.cli.tables import Rows
from experiments.report import chosen, decided_plans, drawn, error_table, published, sharpness
from experiments.report.claims import claim_rows, claims
from experiments.report.drawing import Picture
from experiments.report.groups import Study
from experiments.report.matches import tables
from experiments.report.method_pairs import method_pair_rows, method_pairs
from experiments.report.paired import DIRECT, Difference, differences
from experiments.report.study_tables import difference_rows, run_rows, setting_rows
from experiments.report.variants import variant_differences, variant_heading, variant_rows
from experiments.report.verdicts import verdicts
from experiments.report.wording import multiplicity


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
        *_decided(study),
        *_claims(study),
        *_published(study),
        *(_variant(study, base) if base else []),
        *(_differences(study) if base is None or study.is_large else []),
        *_sharpness(study),
        *(Block(each.title, words=[each.caption], picture=each) for each in draw(study, folder)),
        Block("Settings", [setting_rows(study)]),
        Block("Runs", [run_rows(study)], is_folded=not list_runs),
    ]
    return Section(study.title, blocks)


def _errors(study: Study) -> list[Block]:
    blocks = [
        Block(match.title.capitalize(), [error_table.error_rows(match, study)], is_printed=True)
        for match in tables(study)
    ]
    last = blocks[-1]._replace(words=[error_table.caption(study)])
    given = [Block("What was chosen", [rows], [chosen.REMARK])] if len(rows := chosen.chosen_rows(study)) > 1 else []
    return [*blocks[:-1], last, *given]


def _decided(study: Study) -> list[Block]:
    rows = decided_plans.plan_rows(study)
    return [Block("Plans that the noise decided", [rows], is_printed=True)] if len(rows) > 1 else []


def _claims(study: Study) -> list[Block]:
    found = claims(study)
    words = verdicts(study, found)
    rows = claim_rows(study, found)
    told = [Block("The paper's claims", words=words, is_printed=True)] if words else []
    if len(rows) == 1:
        return told
    compared = [each for claim in found for each in claim.found.values() if each is not None]
    return [*told, Block("The claims in figures", [rows], [multiplicity(compared)], is_printed=not study.is_large)]


def _published(study: Study) -> list[Block]:
    rows = published.published_rows(study)
    return [Block("Beside the paper's figures", [rows], [published.REMARK], is_printed=True)] if len(rows) > 1 else []


def _variant(study: Study, base: Study) -> list[Block]:
    rows = variant_rows(study, base)
    if len(rows) == 1:
        return []
    return [Block(variant_heading(study, base), [rows], [multiplicity(variant_differences(study, base))])]


def _differences(study: Study) -> list[Block]:
    if study.is_large:
        of = method_pairs(study)
        words = [multiplicity(of.differences)]
        return [Block("Methods against one another", [method_pair_rows(study, of)], words)] if of.found else []
    pairs = differences(study.groups)
    direct = [pair for pair in pairs if pair.is_direct]
    others = [pair for pair in pairs if not pair.is_direct]
    blocks = [
        Block(
            "Differences, seed by seed", [difference_rows(direct)] if direct else [], [_verdict(pairs)], is_printed=True
        )
    ]
    if others:
        blocks.append(Block("Differences between the other pairs", [difference_rows(others)]))
    return blocks


def _verdict(pairs: list[Difference]) -> str:
    if not pairs:
        return "Nothing can be said of differences: no two groups of runs share two seeds."
    return (
        f"{DIRECT} Runs of one seed share initialisation, split and data order, so they are compared seed by seed; one "
        "is lower or higher where the 95% t interval of the mean difference leaves 0 out. Of all pairs: "
        f"{multiplicity(pairs)}"
    )


def _sharpness(study: Study) -> list[Block]:
    protocols = list(sharpness.protocols_of(study).items())
    if not protocols:
        return []
    way, radii = protocols[0]
    words = [sharpness.caption(study, way), sharpness.orderings(study, way, radii)]
    rows = sharpness.radius_rows(study, way, radii)
    first = Block("Sharpness", [rows], list(filter(None, words)), is_printed=not study.is_large)
    others = [sharpness.radius_rows(study, *each) for each in protocols[1:]]
    more = Block("Sharpness measured in other ways", others, is_folded=study.is_large, is_printed=not study.is_large)
    return [first, more] if others else [first]
