"""The machine and the version of the program with which a run was recorded."""

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import jax

import sam_optax
from experiments.training.exceptions import printable

_CPUINFO = Path("/proc/cpuinfo")
_SECONDS = 10  # the longest time that Git may take


@dataclass(frozen=True)
class Provenance:
    """The machine and the version.

    Attributes:
      processor: the model of the processor.
      cores: the number of cores that the process may use.
      device: the kind of JAX's first device.
      jax: the version of JAX.
      version: the version of sam_optax; with the commit, if the program runs in a Git repository.
    """

    processor: str
    cores: int
    device: str
    jax: str
    version: str


def provenance() -> Provenance:
    """Returns the machine and the version of this process."""
    commit = _commit()
    version = f"{sam_optax.__version__}, commit {commit}" if commit else sam_optax.__version__
    return Provenance(processor(), cores(), printable(jax.devices()[0].device_kind), jax.__version__, version)


def cores() -> int:
    """Returns the number of cores that this process may use, or of all cores if the system does not report it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Returns the model of the processor, or its architecture if the system does not report the model."""
    text = _CPUINFO.read_text(encoding="utf-8", errors="replace") if _CPUINFO.is_file() else ""
    models = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return printable(models[0] if models else platform.processor() or platform.machine())


def _commit() -> str:
    """Returns the commit of the repository that this file is in, with `-dirty` after changes; empty if unknown."""
    git = shutil.which("git")
    if git is None:
        return ""
    command = [git, "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return printable(done.stdout.strip()) if done.returncode == 0 else ""
