"""Trained runs, and their measurements of sharpness."""

from pathlib import Path
from typing import Any

from experiments import data
from experiments.cli.output_folder import claim
from experiments.config import Config
from experiments.runner import run, sharpness_records


def finished(folder: Path, tiny: str, **settings: Any) -> tuple[Config, data.Dataset]:
    config = Config.from_settings(**{"model": tiny, "method": "sam", "batch_plan": "2x64"} | settings)
    dataset = run.load(config)
    run.execute(config, dataset, claim(folder))
    return config, dataset


def measured(folder: Path, kind: str = "worst_case") -> list[dict[str, Any]]:
    return [record.line() for record in sharpness_records.read(folder) if record.kind == kind]
