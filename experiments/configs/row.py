"""A row of the paper's tables, as a study that can be run."""

from typing import NamedTuple

from experiments.study import Grid

_CELLS = tuple(
    (method, strategy) for strategy in ("constant", "increasing", "cosine") for method in ("sgd", "sam", "gsam")
)


class Published(NamedTuple):
    """What the paper's table says of a cell.

    Attributes:
      error: test error, in %.
      sharpness: the worst case at ρ = 0.0002.
    """

    error: float
    sharpness: float


class Row(NamedTuple):
    """A study with what was published of it.

    Attributes:
      title: as the paper's table calls it.
      study: what is run.
      published: the paper's figures by method and strategy; none where the paper has no such row.
    """

    title: str
    study: Grid
    published: dict[tuple[str, str], Published]


def published(text: str) -> dict[tuple[str, str], Published]:
    """The nine cells of a row as the table has them: `7.17 / 106.46 | 6.34 / 51.82 | ...`."""
    pairs = [cell.split("/") for cell in text.split("|")]
    figures = [Published(float(error), float(sharpness)) for error, sharpness in pairs]
    return dict(zip(_CELLS, figures, strict=True))
