"""What the benchmark measures in addition to steps: the worst case, memory, bfloat16, and a whole plan."""

from collections.abc import Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax
from experiments.benchmark import benchmark_steps, cases, convolutions, measure, program_costs
from experiments.benchmark.benchmark_steps import peak_memory, size_of, temporary_memory
from experiments.benchmark.cases import Case
from experiments.config import Config
from experiments.training.loop import Callbacks
from sam_optax.sharpness import losses
from tests.experiments.test_benchmark import Clock


def test_the_time_of_the_worst_case_is_relative_to_its_evaluations(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(tiny, cases.digits, 128, loop_target=1.3)
    monkeypatch.setattr(measure, "race", lambda subjects, rounds: dict.fromkeys(subjects, [1.0] * rounds))
    time, memory = measure.worst_case_figures(case, cases.digits(), 1.1, 1.0)
    assert (time.subject, time.reference) == ("worst case, 20 steps", "21 values and gradients")
    assert (time.target, memory.target) == (1.1, 1.0)
    posed = benchmark_steps.create(tiny, 10, (8, 8, 1), measure.WORST_CASE_BATCH)
    size = size_of(posed.params)
    evaluation = memory.amounts[0] - 4 * size  # the memory is the four copies of the ascent and no more
    assert 0 < evaluation - peak_memory(_evaluation(tiny)) < size
    assert memory.reference_amounts[0] - 4 * size == peak_memory(benchmark_steps.ours(posed, optax.identity()).compiled)


def test_arrays_that_are_freed_during_the_ascent_do_not_reduce_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = [jnp.zeros(1000)]
    monkeypatch.setattr(losses, "value_and_grad", lambda *arguments: None)

    def worst_case(steps: int) -> None:
        earlier.clear()
        offset = jnp.ones(steps)
        losses.value_and_grad(offset)

    assert measure._held(worst_case) == 3 * 4


def _evaluation(model: str) -> Any:
    posed = benchmark_steps.create(model, 10, (8, 8, 1), measure.WORST_CASE_BATCH, is_training=False)
    loss_fn = measure._loss_fn(posed)
    return jax.jit(jax.value_and_grad(loss_fn)).lower(posed.params, posed.batch).compile()


def test_memory_of_a_step_is_reported_in_copies_of_the_parameters(tiny: str) -> None:
    case = Case(tiny, cases.digits, 16, loop_target=1.3, memory_targets=(1.5, 3.0))
    posed = benchmark_steps.create(tiny, 10, (8, 8, 1), 16)
    found = list(measure.memory_figures(case, posed))
    names = ["SAM", "GSAM", "SAM, without diagnostics"]
    assert [each.subject for each in found] == names + [f"{name}, memory first" for name in names]
    assert [each.target for each in found] == [1.5, 3.0, 1.5] * 2
    assert all(each.reference_amounts == (size_of(posed.params),) for each in found)
    for measured, options in ((found[1], None), (found[4], benchmark_steps.MEMORY_FIRST)):
        held = temporary_memory(
            benchmark_steps.ours(posed, sam_optax.gsam(benchmark_steps.RADIUS), 0.9, options).compiled
        )
        assert measured.amounts == (held - temporary_memory(benchmark_steps.gradient(posed, options)),)


def test_memory_first_steps_need_less_memory_and_give_the_same_update(tiny: str) -> None:
    posed = benchmark_steps.create(tiny, 10, (8, 8, 1), 16)
    by_itself, ordered = (
        benchmark_steps.ours(posed, sam_optax.sam(benchmark_steps.RADIUS), 0.9, options)
        for options in (None, benchmark_steps.MEMORY_FIRST)
    )
    assert temporary_memory(ordered.compiled) < temporary_memory(by_itself.compiled)
    for step in (by_itself, ordered):
        step()
        step()
    chex.assert_trees_all_equal(ordered.params, by_itself.params)


def test_devices_that_share_a_batch_make_the_same_step_to_rounding(tiny: str) -> None:
    posed = benchmark_steps.create(tiny, 10, (8, 8, 1), 16)
    shared = benchmark_steps.divided(posed)
    assert shared.batch[0].sharding.shard_shape(shared.batch[0].shape) == (16 // jax.local_device_count(), 8, 8, 1)
    alone, together = (benchmark_steps.ours(each, sam_optax.sam(benchmark_steps.RADIUS)) for each in (posed, shared))
    alone()
    together()
    chex.assert_trees_all_close(together.params, alone.params, rtol=1e-4, atol=1e-6)


def test_memory_first_is_not_measured_on_an_accelerator(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    case = Case(tiny, cases.digits, 16, loop_target=1.3)
    problem = case.problem(cases.digits())
    assert len(list(measure.memory_figures(case, problem))) == 3
    assert not any("memory first" in name for name in measure._steps(problem))


def test_bfloat16_times_are_relative_to_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    def race_configs(configs: Mapping[str, Config], dataset: Any, rounds: int) -> dict[str, list[float]]:
        milliseconds = {"float32": 8.0, "bfloat16": 2.0}
        return {name: [milliseconds[config.network.precision]] * rounds for name, config in configs.items()}

    monkeypatch.setattr(program_costs, "race_configs", race_configs)
    [case] = cases.CASES["resnet18_accelerator"]
    measured = program_costs.precision_figure(case, cases.digits(), rounds=3)
    assert (measured.subject, measured.reference) == ("GSAM in bfloat16", "GSAM in float32")
    assert measured.quartiles == (0.25, 0.25, 0.25)


@pytest.mark.parametrize(("micro_batch", "name"), [(None, ""), (16, ", micro-batches of 16")])
def test_the_benchmark_of_a_plan_traces_its_step_and_runs_all_stages(
    tiny: str, monkeypatch: pytest.MonkeyPatch, micro_batch: int | None, name: str
) -> None:
    forgotten: list[int] = []
    batch_sizes: list[int] = []
    clock = Clock()
    fit = program_costs.fit
    sent: list[Any] = []

    def fitted(*args: Any) -> Any:
        sent.append(args[1].send({"position": np.arange(16)}))
        return fit(*args, Callbacks(lambda record: batch_sizes.append(record["batch_size"])))

    monkeypatch.setattr(program_costs.jax, "clear_caches", lambda: forgotten.append(len(batch_sizes)))
    monkeypatch.setattr(program_costs, "fit", fitted)
    monkeypatch.setattr(
        program_costs, "steps", lambda *_, updates: clock.subject("step", 0.25 if batch_sizes else 0.75)
    )
    monkeypatch.setattr(program_costs.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(program_costs, "PLAN_ROUNDS", 1)
    case = Case(tiny, cases.digits, 128, loop_target=1.3)
    figure = program_costs.plan_figure(case, cases.digits(), 1.05, examples=256, micro_batch=micro_batch)
    assert figure.subject == f"plan of five stages{name}"
    assert isinstance(sent[0]["position"], jax.Array if micro_batch is None else np.ndarray)  # micro-batches: the host
    assert forgotten == [0]
    assert [
        size for size in (16, 32, 64, 128, 256) for _ in range(256 // size + 1)
    ] == batch_sizes  # plus one record per epoch
    assert figure.reference_amounts == (0.5 * (16 + 8 + 4 + 2 + 1),)  # between a step before the plan and one after it
    assert figure.target == 1.05


def test_times_of_convolutions():
    shape = convolutions.Convolution(8, 64, 64, 3, 1)
    heading, row = convolutions.rows(8, 1, (shape,))
    assert len(heading) == len(row) == 4
    assert row[0] == "3x3, 64 to 64 channels, 8x8 pixels"
    assert all(float(milliseconds) > 0 for cell in row[1:] for milliseconds in cell.split(" → "))
