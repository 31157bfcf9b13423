"""`tiny_program`, but only the first process measures noise; each process prints the plans that it arrives at."""

from typing import Any

import jax

from experiments.training.adaptive import Growing
from experiments.training.progress import EpochNoise
from sam_optax import BatchPlan, NoiseTerms
from tests.experiments import tiny_program

measured, decide = EpochNoise.deciding.fget, Growing.__call__


def fake_noise(noise: EpochNoise) -> NoiseTerms | None:
    return NoiseTerms(1.0, 0.0) if jax.process_index() else measured(noise)


def decide_and_print(growing: Growing, *arguments: Any) -> tuple[BatchPlan, Any]:
    decided = decide(growing, *arguments)
    print(f"plan {decided[0]}", flush=True)
    return decided


if __name__ == "__main__":
    EpochNoise.deciding = property(fake_noise)
    Growing.__call__ = decide_and_print
    tiny_program.main()
