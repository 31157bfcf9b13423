"""Small networks that compile quickly, blank pictures, and a check for threads that a test leaves running."""

import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from matplotlib.figure import Figure

from experiments import data, models
from experiments.cli.output_folder import claim
from experiments.config import Config
from experiments.data import catalogue
from experiments.models import registry
from experiments.runner import run
from tests.experiments.tiny_network import TinyNet


class PlainNet(nnx.Module):
    """Two layers without BatchNorm, in any precision: the examples of a batch do not affect one another."""

    def __init__(self, num_classes: int, image_shape: tuple[int, int, int], rngs: nnx.Rngs) -> None:
        pixels = image_shape[0] * image_shape[1] * image_shape[2]
        self.hidden, self.head = nnx.Linear(pixels, 8, rngs=rngs), nnx.Linear(8, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.head(jnp.tanh(self.hidden(images.reshape(len(images), -1))))


@pytest.fixture(autouse=True)
def restored_signal_handlers() -> Iterator[None]:
    """A program ignores signals after it has ended. This restores them for the next program in this process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a network for tests."""
    monkeypatch.setitem(registry._BUILDERS, "tiny", TinyNet)
    monkeypatch.setattr(models, "NAMES", (*models.NAMES, "tiny"))
    return "tiny"


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a network for tests, without BatchNorm."""
    monkeypatch.setitem(registry._BUILDERS, "plain", PlainNet)
    monkeypatch.setattr(models, "NAMES", (*models.NAMES, "plain"))
    return "plain"


@pytest.fixture
def unshifted_digits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The digits are not shifted in training. Shifting would add a sixth to the compilation time of a step."""

    def load_unshifted(seed: int) -> data.Dataset:
        return dataclasses.replace(catalogue.load_digits(seed), crop_padding=0)

    monkeypatch.setitem(catalogue._EMBEDDED, "digits", load_unshifted)
    catalogue._parted.cache_clear()  # it caches splits of the shifted digits
    yield
    catalogue._parted.cache_clear()


@pytest.fixture
def drawn_pictures() -> None:
    """Makes a test draw its pictures. All other tests write blank ones."""


@pytest.fixture(autouse=True)
def blank_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made and written, but nothing is drawn on them. Drawing would take most of the time of a report."""
    rows = getattr(request.node, "callspec", None)
    is_drawn = rows is not None and rows.params.get("pictures") == "drawn"
    if not is_drawn and "drawn_pictures" not in request.fixturenames:
        monkeypatch.setattr(Figure, "draw", lambda figure, renderer: None)


blank_or_drawn = pytest.mark.parametrize("pictures", ["blank", pytest.param("drawn", marks=pytest.mark.long)])
"""Runs a test with blank pictures in `make test`, and with drawn ones in `make test-long`."""


@pytest.fixture
def started() -> Callable[[], list[str]]:
    """The threads of ours that this test has started and that are still running, without those of earlier tests."""
    earlier = set(threading.enumerate())

    def is_running() -> list[str]:
        names = [thread.name for thread in set(threading.enumerate()) - earlier]
        return [name for name in names if name.startswith(("batches", "compile"))]

    return is_running


def train(output: Path, **settings: Any) -> Any:
    """Trains a run in `output` and returns its result."""
    config = Config.from_settings(**settings)
    return run.execute(config, run.load(config), claim(output))
