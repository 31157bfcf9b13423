"""The programs keep freed memory, so that a step does not have to map its temporary arrays again."""

import subprocess
import sys

from experiments.cli import allocator

_FAULTS = """
import resource, sys
from experiments.cli import allocator

if sys.argv[1] == "keep":
    allocator.keep_freed_memory()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        b"x" * 40_000_000
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""


def faults(mode):
    """Returns the page faults of ten allocations of 10,000 pages each, after ten others."""
    command = [sys.executable, "-c", _FAULTS, mode]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)  # noqa: S603 - a fixed command


def test_kept_memory_causes_no_page_faults():
    """Without glibc there is nothing to set."""
    assert not allocator.is_glibc() or 100 * faults("keep") < faults("default")


def test_other_systems_are_unchanged(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not allocator.is_glibc()
    assert not allocator.keep_freed_memory()
