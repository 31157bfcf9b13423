"""How much memory a compiled step takes."""

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
