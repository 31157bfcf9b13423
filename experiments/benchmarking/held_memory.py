"""What a step holds beside what its gradient holds, in copies of the parameters."""

from collections.abc import Callable

import sam_optax
from experiments import data
from experiments.benchmarking import names, problem, steps
from experiments.benchmarking.cases import Case
from experiments.benchmarking.figure import Figure
from experiments.benchmarking.memory import size_of, temporary_memory

QUANTITY, REFERENCE = "memory above a gradient", "a copy of the parameters"

_METHODS = {
    names.SAM: sam_optax.sam(steps.RADIUS),
    names.GSAM: sam_optax.gsam(steps.RADIUS),
    names.UNMEASURED: sam_optax.without_diagnostics(sam_optax.sam(steps.RADIUS)),
}
_MOMENTUM = 0.9


def figures(case: Case, dataset: data.Dataset) -> list[Figure]:
    """The temporary memory of SGD's step with momentum, its buffers donated, less that of loss and gradient alone.

    Each as the compiler makes them by itself, and with memory first. No figures where the compiler does not tell.
    """
    posed = problem.create(case.model, dataset.num_classes, dataset.image_shape, case.batch_size)
    ordered = _figures(case, posed, names.memory_first, steps.MEMORY_FIRST) if steps.memory_can_be_first() else []
    return _figures(case, posed, str, None) + ordered


def _figures(
    case: Case, posed: problem.Problem, named: Callable[[str], str], options: steps.Options | None
) -> list[Figure]:
    of_gradient = temporary_memory(steps.gradient(posed, options))
    of_sam, of_gsam = case.memory_targets
    targets = {names.SAM: of_sam, names.GSAM: of_gsam, names.UNMEASURED: of_sam}
    found = []
    for name, method in _METHODS.items():
        of_step = temporary_memory(steps.ours(posed, method, _MOMENTUM, options).compiled)
        if of_step is not None and of_gradient is not None:
            amounts = (float(of_step - of_gradient),), (float(size_of(posed.params)),)
            compared = named(name), REFERENCE, targets[name]
            found.append(Figure(case.model, case.batch_size, QUANTITY, *compared, "B", *amounts))
    return found
