"""What a step holds beside what its gradient holds, in copies of the parameters."""

import sam_optax
from experiments import data
from experiments.benchmarking import problem, steps
from experiments.benchmarking.cases import Case
from experiments.benchmarking.figure import Figure
from experiments.benchmarking.memory import size_of, temporary_memory

QUANTITY, REFERENCE = "memory above a gradient", "a copy of the parameters"

_METHODS = {
    "SAM": sam_optax.sam(steps.RADIUS),
    "GSAM": sam_optax.gsam(steps.RADIUS),
    "SAM, without diagnostics": sam_optax.without_diagnostics(sam_optax.sam(steps.RADIUS)),
}
_MOMENTUM = 0.9


def figures(case: Case, dataset: data.Dataset) -> list[Figure]:
    """The temporary memory of SGD's step with momentum, its buffers donated, less that of loss and gradient alone.

    No figures where the compiler does not tell.
    """
    posed = problem.create(case.model, dataset.num_classes, dataset.image_shape, case.batch_size)
    of_gradient = temporary_memory(steps.gradient(posed))
    held = {name: temporary_memory(steps.ours(posed, method, _MOMENTUM).compiled) for name, method in _METHODS.items()}
    of_sam, of_gsam = case.memory_targets
    targets = dict(zip(_METHODS, (of_sam, of_gsam, of_sam), strict=True))
    return [
        Figure(
            case.model,
            case.batch_size,
            QUANTITY,
            name,
            REFERENCE,
            targets[name],
            "B",
            (float(bytes_of_step - of_gradient),),
            (float(size_of(posed.params)),),
        )
        for name, bytes_of_step in held.items()
        if bytes_of_step is not None and of_gradient is not None
    ]
