"""What the steps are called in the table."""

GRADIENTS, SAM, GSAM, UNMEASURED = "two gradients", "SAM", "GSAM", "SAM, without diagnostics"
OPAQUE, DEFAULT = "contrib.sam, opaque", "contrib.sam, default"
SGD = "SGD, momentum"


def memory_first(name: str) -> str:
    """The same step, compiled with memory first."""
    return f"{name}, memory first"
