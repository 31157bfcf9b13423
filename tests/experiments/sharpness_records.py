"""Records of sharpness with figures that are known, as they are measured of a run of four epochs."""

from typing import Any

WAY: dict[str, Any] = {"norm": "linf", "adaptive": False, "steps": 20, "restarts": 1, "examples": 512}
WAY |= {"measured_batch_size": 128, "normalize_logits": False, "reestimate_batchnorm": False, "parameters": 77754}
SMALL, LARGE = 0.0002, 0.0024


def worst_case(rho: float, value: float | None, epoch: int = 4, **others: Any) -> dict[str, Any]:
    """A worst case, half of it first order; None is what is not finite."""
    figures = {"sharpness": value, "first_order": None if value is None else 0.5 * value, "loss": 0.25}
    return {"kind": "worst_case", "epoch": epoch, "step": 4 * epoch, "rho": rho, **WAY, **figures, **others}
