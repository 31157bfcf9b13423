"""Watch how training converges: `python -m experiments.convergence --output runs/convergence`."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro
from rich.console import Console

from experiments import data
from experiments.cli.errors import exit_on_value_error, parse, start
from experiments.cli.output_folder import make_folder, write_document
from experiments.config import check_choice
from experiments.convergence.document import markdown
from experiments.convergence.gradient_norms import REACH
from experiments.convergence.network_study import NetworkStudy
from experiments.convergence.quadratic_study import QuadraticStudy
from experiments.convergence.runner import cells_of, study_networks, study_quadratic

_PARTS = ("quadratic", "networks")


@dataclass(frozen=True)
class Arguments:
    """Follow the gradient norm over all data, and SAM's, along training: by methods and strategies, with fitted rates.

    Attributes:
      study: What to train.
      location: Where the data are.
      quadratic: The problem on which theory gives the answer.
      parts: Of quadratic and networks.
    """

    study: Annotated[NetworkStudy, tyro.conf.arg(name="")]
    location: Annotated[data.Location, tyro.conf.arg(name="")] = field(default_factory=data.Location)
    quadratic: QuadraticStudy = field(default_factory=QuadraticStudy)
    parts: tuple[str, ...] = _PARTS

    def __post_init__(self) -> None:
        for name in self.parts:
            check_choice("parts", name, _PARTS)
        if not self.parts or len(set(self.parts)) < len(self.parts):
            raise ValueError(f"parts is {self.parts}: give at least one, each once.")
        if "quadratic" in self.parts and not set(self.study.methods) & set(REACH):
            raise ValueError(
                f"methods is {self.study.methods}: the quadratic knows {', '.join(REACH)}, add one of them."
            )


def main() -> None:
    """Parse, build, call."""
    arguments = parse(Arguments, "python -m experiments.convergence")
    console = Console(soft_wrap=True, markup=False, highlight=False)
    study = arguments.study
    document = exit_on_value_error(make_folder, study.output) / "convergence.md"
    cells = exit_on_value_error(cells_of, study, arguments.location) if "networks" in arguments.parts else []
    parts = []
    if "quadratic" in arguments.parts:
        known = [name for name in study.methods if name in REACH]
        parts.append(study_quadratic(arguments.quadratic, known, study.strategies, study.output, console))
    if cells:
        parts.append(study_networks(study, cells, arguments.location, console))
    exit_on_value_error(write_document, document, markdown(parts))
    console.print(f"as Markdown, with pictures: {document}")


if __name__ == "__main__":
    start(main)
