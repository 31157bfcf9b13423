"""The package: what it loads, what it hands on, and how that is documented."""

import importlib.metadata
import importlib.resources
import inspect
import subprocess
import sys

import pytest

import sam_optax

SPACES = (sam_optax, sam_optax.sharpness)
NAMED = {f"{space.__name__}.{name}": getattr(space, name) for space in SPACES for name in space.__all__}
RECORDS = [name for name, x in NAMED.items() if hasattr(x, "_fields")]
"""NamedTuples: what they hold is described, and the functions that make them have the examples."""
FUNCTIONS = [name for name, x in NAMED.items() if inspect.isfunction(x)]


def test_the_core_loads_neither_equinox_nor_flax_nor_tensorflow():
    program = "import sys, sam_optax; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()  # noqa: S603
    assert "sam_optax" in loaded
    extras = {"equinox", "flax", "matfree", "matplotlib"}
    assert (extras | {"tensorflow", "tensorflow_datasets", "experiments"}).isdisjoint(loaded)


@pytest.mark.parametrize("space", SPACES)
def test_exported_names_are_sorted_and_exist_once(space):
    assert sorted(set(space.__all__)) == space.__all__
    assert all(hasattr(space, name) for name in space.__all__)


@pytest.mark.parametrize("space", SPACES)
def test_every_public_name_is_exported(space):
    public = {name for name, x in vars(space).items() if not name.startswith("_") and not inspect.ismodule(x)}
    assert public == {name for name in space.__all__ if not inspect.ismodule(getattr(space, name))}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_function_is_documented_with_an_example(name):
    documentation = inspect.getdoc(NAMED[name])
    assert "Example:" in documentation
    assert ">>>" in documentation


@pytest.mark.parametrize("name", RECORDS)
def test_every_record_describes_its_fields(name):
    documentation = inspect.getdoc(NAMED[name])
    for field in NAMED[name]._fields:
        assert f"\n  {field}: " in documentation


def test_the_types_are_shipped():
    assert importlib.resources.files("sam_optax").joinpath("py.typed").is_file()


def test_the_version_is_that_of_the_distribution():
    assert importlib.metadata.version("sam_optax") == sam_optax.__version__
