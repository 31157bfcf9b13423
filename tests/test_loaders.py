"""Loops with other libraries read the batches of a plan in its order, from any update, as shown in docs/loaders.md."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sam_optax import BatchPlan
from tests.selection import some_of

PAGE = (Path(__file__).parents[1] / "docs" / "loaders.md").read_text(encoding="utf-8")
PLAN = BatchPlan.parse("updates:100x16,50x64")
IMAGES = np.arange(1000)
LOADERS = ("NumPy", "PyTorch", "Grain", "Hugging Face datasets")
IN_EVERY_TEST = (
    "NumPy",
    "Grain",
)  # `make test-loaders` installs the other libraries, which are large, and runs all loops
RECORD = """
found = []


def train(batch):
    found.append(np.asarray(batch).tolist())
"""


def code_of(title: str) -> str:
    """The code of a section of the page."""
    [block] = re.findall(rf"^## {title}\n.*?^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    return block


def setup() -> str:
    return re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)[0]


@pytest.mark.parametrize("start", [0, 99, 120])
@some_of(LOADERS, quick=IN_EVERY_TEST, argument="title")
def test_a_loop_reads_the_batches_of_the_plan_from_any_update(title: str, start: int) -> None:
    code = setup() + RECORD + code_of(title).replace("120", str(start)) + "\nimport json\nprint(json.dumps(found))\n"
    # a separate process, because PyTorch crashes in a process that has loaded TensorFlow
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603 - our own code
    expected = [IMAGES[batch.indices].tolist() for batch in PLAN.batches(len(IMAGES), seed=0, start=start)]
    assert json.loads(printed.splitlines()[-1]) == expected
    assert len(expected) == 150 - start


def test_each_loop_has_at_most_ten_lines() -> None:
    for title in LOADERS:
        lines = [line for line in code_of(title).splitlines() if line.strip()]
        assert 2 <= len(lines) <= 10, title
