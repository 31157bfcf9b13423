"""With several processes, the first one decides an adaptive batch plan for all."""

from typing import Any

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from experiments.training.adaptive import AdaptivePlan, Growing
from experiments.training.progress import EpochNoise, Progress, Total
from experiments.training.sharding import Sharding, mesh_of
from sam_optax import AdaptiveState
from sam_optax.batch_plan import Stage

ADAPTIVE = AdaptivePlan.parse("adaptive:8x16..64:noise_scale")
THEIRS = AdaptiveState(64, (Stage(1, 16),), 0, 0.0)


def test_all_processes_follow_the_broadcast_decision() -> None:
    found: list[AdaptiveState] = []
    followed: list[tuple[str, int]] = []
    growing = Growing(
        ADAPTIVE,
        128,
        lambda plan, step: followed.append((str(plan), step)),
        lambda state: found.append(state) or THEIRS,
    )
    noise = EpochNoise(Total(signal=1.0, noise=20.0, steps=1))
    plan, progress = growing(ADAPTIVE.at_first(128), Progress(step=8, noise=noise))
    assert found == [
        AdaptiveState(16, (Stage(1, 16),), 1, 20.0)
    ]  # the state of this process, which requests one growth
    assert str(plan) == "1x16,7x64"
    assert followed == [("1x16,7x64", 8)]
    assert progress.growth == THEIRS._asdict()


def test_a_single_process_decides_by_itself() -> None:
    state = AdaptiveState(16, (Stage(1, 16),), 1, 20.1)
    assert Sharding().agreed(state) is state
    assert Sharding(mesh_of(jax.devices()[:2])).agreed(state) is state


def test_the_other_processes_get_the_exact_numbers_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []

    def broadcast(bits: np.ndarray, is_source: bool) -> np.ndarray:
        if is_source:
            sent.append(bits)
        return sent[0]

    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", broadcast)
    first, second = AdaptiveState(32, (Stage(2, 16),), 0, 0.1), AdaptiveState(16, (Stage(2, 16),), 1, 1 / 3)
    for process, mine in enumerate((first, second)):
        monkeypatch.setattr(Sharding, "part", (process, 2))
        agreed = Sharding().agreed(mine)
        assert agreed == first
        assert [type(x) for x in jax.tree.leaves(agreed)] == [int, int, int, int, float]
