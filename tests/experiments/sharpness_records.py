"""Records of sharpness with known figures, in the form of measurements of a run of four epochs."""

from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.report.groups import Study
from experiments.report.page import publish
from experiments.runner import sharpness_records
from experiments.runner.finished_runs import find_runs
from experiments.training.json_files import decode
from experiments.training.records import SHARPNESS, SharpnessRecord
from experiments.training.writers import plain
from tests.experiments.written_runs import only_study, write_study

WAY: dict[str, Any] = {"norm": "linf", "adaptive": False, "steps": 20, "restarts": 1, "examples": 512}
WAY |= {"measured_batch_size": 128, "normalize_logits": False, "reestimate_batchnorm": False, "parameters": 77754}
SMALL, LARGE = 0.0002, 0.0024
VALUES = {  # at the small and at the large radius, for seed 0; each further seed adds a tenth
    "sgd-constant": (0.4, 9.0),
    "sgd-increasing": (0.1, 8.0),
    "gsam-constant": (0.3, 12.0),
    "gsam-increasing": (0.05, 2.0),
}


def worst_case(rho: float, value: float | None, epoch: int = 4, **others: Any) -> dict[str, Any]:
    """A worst case whose first-order part is half of it. None represents a value that is not finite."""
    figures = {"sharpness": value, "first_order": None if value is None else 0.5 * value, "loss": 0.25}
    return {"kind": "worst_case", "epoch": epoch, "step": 4 * epoch, "rho": rho, **WAY, **figures, **others}


def add_lines(folder: Path, lines: list[dict[str, Any]]) -> None:
    """Append measurements as JSON objects."""
    sharpness_records.add(folder, decoded(lines))


def decoded(lines: list[dict[str, Any]]) -> list[SharpnessRecord]:
    return [decode(plain(line), SHARPNESS[line["kind"]]) for line in lines]


def measured_study(folder: Path) -> Study:
    write_study(folder)
    for name, values in VALUES.items():
        for seed in range(3):
            pairs = zip((SMALL, LARGE), values, strict=True)
            records = [worst_case(rho, value * (1 + 0.1 * seed)) for rho, value in pairs]
            add_lines(folder / f"{name}-{seed}", records)
    return only_study(folder)


def published(folder: Path) -> tuple[str, str]:
    """The text of the report on the terminal and in the Markdown file."""
    out = StringIO()
    publish(find_runs([folder]), folder / "report", Console(file=out, width=200, soft_wrap=True))
    return out.getvalue(), (folder / "report" / "report.md").read_text(encoding="utf-8")
