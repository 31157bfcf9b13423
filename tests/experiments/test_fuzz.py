"""Any config, plan or tree of a save is either accepted or refused with a message."""

import math
import tempfile
from pathlib import Path
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from experiments.config import Config
from experiments.config.sections import ON_NONFINITE
from experiments.runner import run
from experiments.training import checkpoint
from experiments.training.checkpoint import Checkpoints
from experiments.training.epoch_schedule import EpochSchedule, Saving
from experiments.training.methods import METHODS
from experiments.training.optimizer import BASES
from sam_optax import BatchPlan
from tests.experiments.interrupted_runs import assert_same_run, assert_same_state, execute, stopped

# the fixtures are monkeypatches, which can be shared by all examples of a test
few = hypothesis.settings(max_examples=2, suppress_health_check=[HealthCheck.function_scoped_fixture])
many = hypothesis.settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
quick = hypothesis.settings(max_examples=100)

fractions = st.floats(0, 0.9)
rates = st.floats(0, 10)
settings = st.fixed_dictionaries(
    {"method": st.sampled_from(sorted(METHODS)), "batch_plan": st.sampled_from(["2x16", "1x8", "1x16,1x8"])},
    optional={
        "when": st.sampled_from(["always", "every:2", "after:1", "last:0.5", "bernoulli:0.5", "ae_sam"]),
        "lr_schedule": st.sampled_from(["cosine", "linear", "polynomial:2", "inverse_sqrt", "steps:0.2:1"]),
        "optimizer": st.sampled_from(BASES),
        "rho": rates,
        "alpha": rates,
        "learning_rate": rates,
        "momentum": fractions,
        "weight_decay": rates,
        "ema": fractions,
        "m": st.sampled_from([4, 8]),
        "warmup_epochs": st.floats(0, 0.5),
        "random_erasing": fractions,
        "mixing": fractions,
        "label_smoothing": fractions,
        "label_noise": fractions,
        "passes": st.integers(1, 2),
        "on_nonfinite": st.sampled_from(ON_NONFINITE[:1]),
        "seed": st.integers(0, 2**32 - 1),
    },
)


def trained_or_refused(asked: dict[str, Any]) -> None:
    """A config of these settings trains, or is refused with the name of one of them."""
    try:
        config = Config.from_settings(model="tiny", train_examples=16, **asked)
    except ValueError as error:
        assert_clear_refusal(error, asked)
        return
    dataset = run.load(config)
    _, last = run.train(config, dataset)
    assert last.step == run.total_updates(config, dataset) <= 6
    most = (1 + config.second_pass_gradients) * last.step
    assert last.step <= last.gradient_evaluations <= most


def assert_clear_refusal(error: ValueError, asked: dict[str, Any]) -> None:
    """Asserts that the error names an argument and its value, and says what to do."""
    message = str(error)
    assert any(message.startswith(f"{name} is ") for name in (*asked, "momentum", "rho", "when", "alpha")), message
    assert "\n" not in message
    assert message.endswith(".")


@few
@given(asked=settings)
def test_a_config_trains_or_is_refused(tiny: str, asked: dict[str, Any]) -> None:
    trained_or_refused(asked)


@pytest.mark.long
@many
@given(asked=settings)
def test_many_configs_train_or_are_refused(tiny: str, asked: dict[str, Any]) -> None:
    trained_or_refused(asked)


ANY: dict[type, st.SearchStrategy[Any]] = {
    float: st.floats(),
    int: st.integers(-(2**70), 2**70) | st.integers(-3, 3),
    str: st.text(max_size=12) | st.text("0123456789x,:.-+e²", max_size=12),
}
FIELDS = {
    "method": str, "when": str, "batch_plan": str, "lr_schedule": str, "optimizer": str, "model": str, "dataset": str,
    "stem": str, "on_nonfinite": str, "perturbation": str, "seed": int, "m": int, "passes": int, "split": int,
    "train_examples": int, "rho": float, "alpha": float, "learning_rate": float, "momentum": float, "ema": float,
    "weight_decay": float, "warmup_epochs": float, "random_erasing": float, "mixing": float,
    "label_smoothing": float,
    "label_noise": float, "validation": float, "drop_path": float,
}  # fmt: skip
values = st.sampled_from(sorted(FIELDS)).flatmap(lambda name: st.tuples(st.just(name), ANY[FIELDS[name]]))


@quick
@given(pairs=st.lists(values, min_size=1, max_size=2, unique_by=lambda pair: pair[0]))
def test_any_value_of_a_setting_is_accepted_or_refused_with_a_message(pairs: list[tuple[str, Any]]) -> None:
    asked = dict(pairs)
    try:
        config = Config.from_settings(**asked)
        run.load(config)
    except ValueError as error:
        message = str(error)
        assert any(name in message for name in (*asked, "plan", "data set")), message
        assert "\n" not in message.replace(repr(asked.get("batch_plan")), "")
        return
    assert all(math.isfinite(value) for value in asked.values() if isinstance(value, float))


plans = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 40)), min_size=1, max_size=4).map(BatchPlan.from_stages)


@quick
@given(plan=plans, examples=st.integers(40, 200), every=st.none() | st.integers(1, 50), start=st.integers(0, 10**6))
def test_segments_of_a_plan_cover_every_step_once_and_end_at_every_save(
    plan: BatchPlan, examples: int, every: int | None, start: int
) -> None:
    total, found = plan.total_steps(examples), []
    start %= total + 1
    for epoch in range(plan.epochs):
        course = EpochSchedule.of(epoch, {"rho": lambda epochs: epochs}, bool, plan, examples)
        due = Saving(every).due(epoch, course.steps, examples)
        assert all(course.steps.start < step <= course.steps.stop for step in due)
        ends = []
        for part in course.cut(max(start, course.steps.start), due):
            found += part.steps
            ends.append(part.steps.stop)
            assert {each.batch_size for each in part.scheduled} == {plan.batch_size_at(epoch)}
            assert [each.perturb for each in part.scheduled] == [step > 0 for step in part.steps]
            positions = [plan.epoch_at(step, examples) for step in part.steps]
            assert [each.position for each in part.scheduled] == positions
            rhos = [each.hyperparameters["rho"] for each in part.scheduled]
            np.testing.assert_array_equal(rhos, np.float32(positions))
        assert {step for step in due if step > start} <= set(ends)
    assert found == list(range(start, total))


DTYPES = [np.float32, np.float16, ml_dtypes.bfloat16, np.int32, np.uint8, np.bool_]
arrays = st.builds(
    lambda dtype, shape, seed: jnp.asarray(np.random.default_rng(seed).normal(size=shape) * 50, dtype),
    st.sampled_from(DTYPES),
    st.lists(st.integers(1, 4), max_size=3).map(tuple),
    st.integers(0, 999),
) | st.integers(0, 99).map(jax.random.key)  # fmt: skip
trees = st.recursive(
    arrays,
    lambda children: (
        st.dictionaries(st.text("ab/. ", min_size=1, max_size=3), children, max_size=3)
        | st.lists(children, max_size=3)
        | st.tuples(children, children)
    ),
    max_leaves=6,
).map(lambda tree: {"count": jnp.int32(3), "tree": tree})


@hypothesis.settings(max_examples=10)
@given(tree=trees)
def test_any_state_is_restored_as_it_was_saved(tree: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        saves = Checkpoints(Path(folder) / "saves", keep=1)
        saves.save(7, tree, {"notes": [1.5, None, math.nan]})
        saves.close()
        assert_same_state(checkpoint.restore_save(Path(folder) / "saves", 7, tree), tree)
        first, second, third = checkpoint.notes_of(Path(folder) / "saves", 7)["notes"]
        assert (first, second) == (1.5, None)
        assert math.isnan(third)


@few
@given(
    sizes=st.lists(st.sampled_from([128, 256]), min_size=1, max_size=3),
    stops=st.lists(st.integers(0, 12), max_size=2),
    every=st.none() | st.integers(1, 5),
)
def test_any_stop_and_save_interval_gives_the_same_run(
    tiny: str, sizes: list[int], stops: list[int], every: int | None
) -> None:
    config = Config.from_settings(model=tiny, method="sam", batch_plan=",".join(f"1x{size}" for size in sizes))
    total = run.total_updates(config, run.load(config))
    with tempfile.TemporaryDirectory() as folder:
        output, whole = Path(folder) / "run", Path(folder) / "whole"
        for step in sorted({step for step in stops if step <= total}):
            stopped(output, config, step, every)
        execute(output, config, saving=Saving(every))
        execute(whole, config)
        assert_same_run(output, whole)
