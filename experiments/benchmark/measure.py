"""Measures all figures of a case: the steps, their memory and the worst case. `program_costs` measures the program."""

import dataclasses
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import jax
import optax

import sam_optax
from experiments import data
from experiments.benchmark import benchmark_steps, program_costs
from experiments.benchmark.benchmark_steps import RADIUS, Problem, Running, peak_memory, size_of, temporary_memory
from experiments.benchmark.cases import Case
from experiments.benchmark.ratios import Figure, Seconds, race
from sam_optax import sharpness
from sam_optax.sharpness import losses

_GRADIENTS, _SAM, _GSAM, _UNMEASURED = "two gradients", "SAM", "GSAM", "SAM, without diagnostics"
_OPAQUE, _DEFAULT = "contrib.sam, opaque", "contrib.sam, default"
_AGAINST_CONTRIB = ((_SAM, _DEFAULT, 1.0), (_SAM, _OPAQUE, 1.0), (_UNMEASURED, _OPAQUE, 1.0))

_MOMENTUM = 0.9
_METHODS = {
    _SAM: sam_optax.sam(RADIUS),
    _GSAM: sam_optax.gsam(RADIUS),
    _UNMEASURED: sam_optax.without_diagnostics(sam_optax.sam(RADIUS)),
}


def measure(case: Case, rounds: int, report: Callable[[str], None]) -> Iterator[Figure]:
    """Measures the time and memory of the steps, the time of the loop, and the optional figures of the case.

    Args:
      case: the case to measure.
      rounds: the number of rounds of each race.
      report: a function that is called with a sentence about the next measurement.

    Yields:
      The figures, in the order of the table, as soon as they are measured, because a case may take most of an hour.
    """
    name = f"{case.model}, batch {case.batch_size}"
    dataset = case.dataset()
    report(f"{name}: compiling the steps")
    problem = case.problem(dataset)
    steps = _steps(problem)
    report(f"{name}: timing the steps, {rounds} rounds")
    inputs = problem.params, problem.model_state, *problem.batch
    gradients = benchmark_steps.repeated(benchmark_steps.gradient(problem), 2, *inputs)  # the minimum for two passes
    seconds = race({_GRADIENTS: gradients, **steps}, rounds)
    yield from _step_figures(case, steps, seconds)
    del steps
    report(f"{name}: memory of a step in addition to a gradient")
    yield from memory_figures(case, problem)
    report(f"{name}: timing {program_costs.STEPS} steps of the methods that save passes, {rounds} rounds")
    yield from program_costs.thrifty_figures(case, dataset, rounds)
    report(f"{name}: timing the loop, {rounds} rounds")
    yield program_costs.loop_figure(case, dataset, statistics.median(seconds[_GSAM]), rounds)
    if case.in_bfloat16:
        report(f"{name}: timing bfloat16, {rounds} rounds")
        yield program_costs.precision_figure(case, dataset, rounds)
    if case.plan is not None:
        for micro_batch in (None, program_costs.PLAN_SIZES[0]):
            parts = "whole batches" if micro_batch is None else f"micro-batches of {micro_batch}"
            report(f"{name}: timing a plan of five stages in {parts}, {program_costs.PLAN_ROUNDS} rounds")
            yield program_costs.plan_figure(case, dataset, *case.plan, micro_batch)
    if case.worst_case_targets is not None:
        report(f"{case.model}, batch {WORST_CASE_BATCH}: the worst case, {_WORST_CASE_ROUNDS} rounds")
        larger = dataclasses.replace(case, batch_size=WORST_CASE_BATCH)
        yield from worst_case_figures(larger, dataset, *case.worst_case_targets)


def _steps(problem: Problem) -> dict[str, Running]:
    """Returns the steps that are timed, by name."""
    steps = {name: benchmark_steps.ours(problem, method) for name, method in _METHODS.items()}
    steps[_OPAQUE] = benchmark_steps.contrib(problem, opaque_mode=True)
    steps[_DEFAULT] = benchmark_steps.contrib(problem, opaque_mode=False)
    for suffix, options in benchmark_steps.compiler_options().items():
        if options is not None:
            for name in (_SAM, _GSAM):
                steps[name + suffix] = benchmark_steps.ours(problem, _METHODS[name], options=options)
    return steps


def _step_figures(case: Case, steps: Mapping[str, Running], seconds: Seconds) -> Iterator[Figure]:
    for suffix in benchmark_steps.compiler_options():
        for name, target in zip((_SAM, _GSAM), case.step_targets, strict=True):
            yield case.time_figure(name + suffix, _GRADIENTS, target, seconds)
    for compared in _AGAINST_CONTRIB:
        yield case.time_figure(*compared, seconds)
    for compared in _AGAINST_CONTRIB:
        peak, reference_peak = (peak_memory(steps[name].compiled) for name in compared[:2])
        if peak is not None and reference_peak is not None:
            yield Figure(case.model, case.batch_size, "peak memory", *compared, "B", (peak,), (reference_peak,))


def memory_figures(case: Case, problem: Problem) -> Iterator[Figure]:
    """Yields the temporary memory of each method's step, minus that of the loss and its gradient.

    The steps apply SGD with momentum, and their buffers are donated. Each is compiled with the compiler's default
    schedule, and on a CPU also with the schedule for little memory. There are no figures if the compiler does not
    report memory.
    """
    of_sam, of_gsam = case.memory_targets
    for suffix, options in benchmark_steps.compiler_options().items():
        of_gradient = temporary_memory(benchmark_steps.gradient(problem, options))
        for (name, method), target in zip(_METHODS.items(), (of_sam, of_gsam, of_sam), strict=True):
            of_step = temporary_memory(benchmark_steps.ours(problem, method, _MOMENTUM, options).compiled)
            if of_step is not None and of_gradient is not None:
                compared = "memory above a gradient", name + suffix, "a copy of the parameters", target
                amounts = (of_step - of_gradient,), (size_of(problem.params),)
                yield Figure(case.model, case.batch_size, *compared, "B", *amounts)


WORST_CASE_BATCH = 128
_WORST_CASE_ROUNDS = 3  # a turn takes a minute, and is already a mean over 21 evaluations

_STEPS, _COPIES = 20, 4


def worst_case_figures(case: Case, dataset: data.Dataset, time_target: float, memory_target: float) -> Iterator[Figure]:
    """Measures the worst case: time relative to the bare evaluations, and memory.

    Memory is relative to that of a training step and four copies of the parameters.
    """
    still, training = case.problem(dataset, is_training=False), case.problem(dataset)
    loss_fn = _loss_fn(still)
    value_and_grad = jax.jit(jax.value_and_grad(loss_fn)).lower(still.params, still.batch).compile()

    def worst_case(steps: int = _STEPS) -> None:
        jax.block_until_ready(sharpness.worst_case(loss_fn, still.params, [still.batch], rho=0.0002, steps=steps))

    subject, reference = f"worst case, {_STEPS} steps", f"{_STEPS + 1} values and gradients"
    evaluations = benchmark_steps.repeated(value_and_grad, _STEPS + 1, still.params, still.batch)
    seconds = race({subject: worst_case, reference: evaluations}, _WORST_CASE_ROUNDS)
    yield case.time_figure(subject, reference, time_target, seconds)
    evaluation = peak_memory(value_and_grad)
    step = peak_memory(benchmark_steps.ours(training, optax.identity()).compiled)
    if evaluation is not None and step is not None:
        compared = "peak memory", "worst case", f"SGD's step and {_COPIES} copies", memory_target
        amounts = (evaluation + _held(worst_case),), (step + _COPIES * size_of(training.params),)
        yield Figure(case.model, case.batch_size, *compared, "B", *amounts)


def _loss_fn(problem: Problem) -> Callable[..., jax.Array]:
    return lambda params, batch: problem.loss_fn(params, problem.model_state, *batch)[0]


def _held(worst_case: Callable[[int], None]) -> int:
    """Measures the peak of the bytes of live arrays at the evaluations of an ascent.

    Arrays that were live before the ascent, such as the parameters and the batch, are not counted.
    """
    before, held = jax.live_arrays(), [0]  # the list keeps them alive, so none is freed during the ascent
    value_and_grad = losses.value_and_grad

    def evaluate(*arguments: Any) -> Any:
        held.append(size_of(jax.live_arrays()) - size_of(before))
        return value_and_grad(*arguments)

    with mock.patch.object(losses, "value_and_grad", evaluate):
        worst_case(3)
    return max(held)
