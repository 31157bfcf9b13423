"""Finished runs with known figures, in the files that a run writes."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments.config import Config
from experiments.report.groups import Study, studies
from experiments.report.runs_table import table_of
from experiments.runner.finished_runs import find_runs
from experiments.training.methods import METHODS
from experiments.training.writers import JsonLines
from sam_optax import BatchPlan
from tests.experiments.each_method import gradients_of

PLANS = {"constant": "4x128", "increasing": "2x64,2x256"}


def write_run(
    folder: Path, error: float, loss: float | None = 0.5, came_out: str | None = None, **settings: Any
) -> Path:
    """Writes a finished run with a constant error, and gradient norms equal to the number of the update.

    For an adaptive plan, `came_out` is its recorded plan. Its noise scale is the epoch, but infinite in the first.
    """
    config = Config.from_settings(**settings)
    plan = config.plan if came_out is None else BatchPlan.parse(came_out)
    folder.mkdir(parents=True)
    config.save(folder / "config.json")
    writer, step = JsonLines(folder / "metrics.jsonl"), 0
    for epoch in range(plan.epochs):
        batch_size = plan.batch_size_at(epoch)
        for position in range(512 // batch_size):
            measured: dict[str, Any] = {"grad_norm": step + 1}
            if METHODS[config.method].makes_second_pass:
                measured |= {
                    "perturbed_grad_norm": 2.0,
                    "cosine": 0.9,
                    "perturbation_norm": 0.05,
                    "rho": config.descent.rho,
                }
            if came_out is not None:
                measured |= {"clean_signal": 1.0, "clean_noise": epoch + 1}
            now = {"step": step, "epoch": epoch + position * batch_size / 512, "batch_size": batch_size}
            rate = config.descent.learning_rate * (1 - now["epoch"] / 10 if config.lr_schedule == "linear" else 1)
            writer.write({"kind": "step", **now, "learning_rate": rate, **measured})
            step += 1
        figures = {"train_loss": np.nan if loss is None else loss / (epoch + 1), "train_error": 0.1}
        tested = {"test_loss": 1.0, "test_error": error}
        if came_out is not None:
            figures["noise_scale"] = epoch + 1 if epoch else np.inf
        writer.write({"kind": "epoch", "epoch": epoch + 1, "step": step, "batch_size": batch_size, **figures, **tested})
    writer.close()
    result = {"train_loss": loss, "train_error": 0.1, "test_loss": loss, "test_error": error}
    result |= {"updates": step, "gradient_evaluations": gradients_of(config.method) * step, "seconds": 1.5}
    result |= {} if came_out is None else {"batch_plan": came_out}
    (folder / "result.json").write_text(json.dumps(result))
    return folder


ERRORS = {
    ("sgd", "constant"): (0.050, 0.060, 0.055),
    ("sgd", "increasing"): (0.040, 0.051, 0.044),
    ("gsam", "constant"): (0.049, 0.061, 0.052),
    ("gsam", "increasing"): (0.020, 0.031, 0.026),
}


def write_study(folder: Path) -> Path:
    """A study of two methods, two strategies and three seeds."""
    for (method, strategy), errors in ERRORS.items():
        for seed, error in enumerate(errors):
            plan = PLANS[strategy]
            write_run(folder / f"{method}-{strategy}-{seed}", error, method=method, batch_plan=plan, seed=seed)
    return folder


def only_study(*folders: Path) -> Study:
    (study,) = studies(table_of(find_runs(folders)))
    return study
