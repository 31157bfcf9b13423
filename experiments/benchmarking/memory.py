"""How much memory a compiled step takes."""

import math
from typing import Any

import jax


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
