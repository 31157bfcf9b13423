"""The call stack of a run is short: few files of the program are between its command and its network."""

import sys
import traceback
from pathlib import Path

import jax
import pytest
from flax import nnx

import experiments
from experiments import models, train
from experiments.cli.errors import start
from experiments.models import registry

PROGRAM = Path(experiments.__file__).parent
MOST_FILES = 8

traced: list[set[str]] = []


class Recording(nnx.Module):
    """A linear network that remembers which files of the program are on the call stack while it is traced."""

    def __init__(self, num_classes: int, image_shape: tuple[int, int, int], rngs: nnx.Rngs) -> None:
        self.head = nnx.Linear(image_shape[0] * image_shape[1] * image_shape[2], num_classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        files = {Path(frame.filename) for frame in traceback.extract_stack()}
        traced.append({str(file.relative_to(PROGRAM)) for file in files if file.is_relative_to(PROGRAM)})
        return self.head(images.reshape(len(images), -1))


@pytest.mark.parametrize(
    ("options", "file"),
    [
        ([], "training/step.py"),
        (["--micro-batch", "8"], "training/accumulation.py"),
        (["--m", "8"], "training/step.py"),
    ],
    ids=["whole", "micro_batches", "shards"],
)
def test_few_files_of_the_program_lie_between_the_command_and_the_loss(
    options: list[str], file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._BUILDERS, "recording", Recording)
    monkeypatch.setattr(models, "NAMES", (*models.NAMES, "recording"))
    run = ["--model", "recording", "--batch-plan", "1x16,1x32", "--train-examples", "64", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["train", "--method", "sam", *run, *options])
    traced.clear()
    start(train.main)
    through_the_loss = [files for files in traced if "training/loss_and_update.py" in files]
    assert any({"train.py", file} <= files for files in through_the_loss)
    assert max(map(len, traced)) <= MOST_FILES, traced
