"""Memory of a compiled step, and of a step above its gradient, in copies of the parameters."""

import math
from collections.abc import Callable
from typing import Any

import jax

import sam_optax
from experiments import data
from experiments.benchmark import benchmark_steps, ratios
from experiments.benchmark.cases import Case
from experiments.benchmark.ratios import Figure


def peak_memory(compiled: jax.stages.Compiled) -> int | None:
    """The bytes that the device holds while the function runs, or None where the compiler does not tell.

    Temporary buffers, arguments and outputs, less the outputs that take over the buffers of donated arguments. The
    compiler's own field of that name leaves the temporary buffers out on the CPU.
    """
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    outputs = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + outputs


def temporary_memory(compiled: jax.stages.Compiled) -> int | None:
    """The bytes of that which are neither arguments nor outputs, or None where the compiler does not tell."""
    analysis = compiled.memory_analysis()
    return None if analysis is None else analysis.temp_size_in_bytes


def size_of(tree: Any) -> int:
    """The bytes of all arrays of a tree."""
    return sum(x.dtype.itemsize * math.prod(x.shape) for x in jax.tree.leaves(tree))


QUANTITY, REFERENCE = "memory above a gradient", "a copy of the parameters"

_METHODS = {
    ratios.SAM: sam_optax.sam(benchmark_steps.RADIUS),
    ratios.GSAM: sam_optax.gsam(benchmark_steps.RADIUS),
    ratios.UNMEASURED: sam_optax.without_diagnostics(sam_optax.sam(benchmark_steps.RADIUS)),
}
_MOMENTUM = 0.9


def figures(case: Case, dataset: data.Dataset) -> list[Figure]:
    """The temporary memory of SGD's step with momentum, its buffers donated, less that of loss and gradient alone.

    Each as the compiler makes them by itself, and with memory first. No figures where the compiler does not tell.
    """
    posed = benchmark_steps.create(case.model, dataset.num_classes, dataset.image_shape, case.batch_size)
    ordered = (
        _figures(case, posed, ratios.memory_first, benchmark_steps.MEMORY_FIRST)
        if benchmark_steps.memory_can_be_first()
        else []
    )
    return _figures(case, posed, str, None) + ordered


def _figures(
    case: Case, posed: benchmark_steps.Problem, named: Callable[[str], str], options: benchmark_steps.Options | None
) -> list[Figure]:
    of_gradient = temporary_memory(benchmark_steps.gradient(posed, options))
    of_sam, of_gsam = case.memory_targets
    targets = {ratios.SAM: of_sam, ratios.GSAM: of_gsam, ratios.UNMEASURED: of_sam}
    found = []
    for name, method in _METHODS.items():
        of_step = temporary_memory(benchmark_steps.ours(posed, method, _MOMENTUM, options).compiled)
        if of_step is not None and of_gradient is not None:
            amounts = (float(of_step - of_gradient),), (float(size_of(posed.params)),)
            compared = named(name), REFERENCE, targets[name]
            found.append(Figure(case.model, case.batch_size, QUANTITY, *compared, "B", *amounts))
    return found
