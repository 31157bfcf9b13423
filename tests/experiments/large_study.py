"""A study of realistic size: the paper's cells, controls, three matches, and other settings, with made-up figures."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from experiments.study import Grid
from experiments.study.strategies import CONTROLS, PAPERS
from tests.experiments.each_method import gradients_of
from tests.experiments.sharpness_records import LARGE, SMALL, WAY, add_lines, worst_case
from tests.experiments.written_runs import write_run

EXAMPLES = 512  # the updates per epoch that `write_run` uses


def write_large_study(folder: Path, seeds: int = 3, **settings: Any) -> Path:
    """Every method, strategy and match, with sharpness at both radii, also measured adaptively."""
    grid = Grid.from_settings(
        output=folder,
        seeds=tuple(range(seeds)),
        strategies=(*PAPERS, "linear", *CONTROLS),
        match=("epochs", "updates", "gradients"),
        constant_plan="10x128",
        increasing_plan="2x16,2x32,2x64,2x128,2x256",
    )
    for spec in grid.with_settings(**settings).run_specs(EXAMPLES):
        config = spec.config
        draw = np.random.default_rng(zlib.crc32(repr(config).encode()))
        updates = config.plan.total_steps(EXAMPLES)
        gain = {"sgd": 0.0, "sam": 0.005, "gsam": 0.006}[config.method]
        error = 0.02 + 2.0 / updates - gain + 0.002 * draw.standard_normal()
        write_run(spec.folder, round(max(error, 0.001), 4), 8.0 / updates, **config.settings)
        sharp = 30.0 / updates / gradients_of(config.method) * np.exp(0.1 * draw.standard_normal())
        place = {"epoch": config.plan.epochs, "step": updates, "loss": 8.0 / updates}
        values = {SMALL: sharp, LARGE: 100 * sharp**0.5}
        records = [
            worst_case(rho, value, **place, adaptive=adaptive)
            for adaptive in (False, True)
            for rho, value in values.items()
        ]
        eigenvalue = {"kind": "top_eigenvalue", **WAY, **place, "eigenvalue": 50.0 + 5 * draw.standard_normal()}
        add_lines(spec.folder, [*records, eigenvalue])
    return folder
