"""Where and with what the figures were measured."""

import os
import platform
from typing import Any

import flax
import jax
import jaxlib
import optax

import sam_optax


def machine() -> dict[str, Any]:
    """The device, the cores that this process may use, and the versions, as JSON has them."""
    return {
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "cores": cores(),
        "processor": platform.processor() or platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {
            module.__name__: module.__version__  # pyright: ignore[reportAttributeAccessIssue]
            for module in (jax, jaxlib, optax, flax, sam_optax)
        },
    }


def cores() -> int:
    """The cores that this process may use, where the system tells, else all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
