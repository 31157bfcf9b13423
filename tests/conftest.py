"""How the tests run: on the CPU as eight devices, with one compilation cache and fixed hypothesis examples."""

import gc
import itertools
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling small functions that run a few times takes most of the time, so they are compiled without optimization
# and in one piece. jaxlib 0.10 has two code generators, of which the older one is faster; later versions have one, and
# abort at a flag that they do not know.
os.environ["XLA_FLAGS"] = " ".join(
    (
        os.environ.get("XLA_FLAGS", ""),
        "--xla_backend_optimization_level=0",
        "--xla_cpu_parallel_codegen_split_count=1",
        "--xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else "",
    )
)

# A traceback for each operation that is traced takes 5% of the time, and no test reads it.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
os.environ.setdefault("JAX_INCLUDE_FULL_TRACEBACKS_IN_LOCATIONS", "0")

import hypothesis
import jax
import pytest

from tests.quick_rows import mark_other_rows
from tests.selection import LOOPS

jax.config.update("jax_num_cpu_devices", 8)  # simulated devices, for tests that need several
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_configure(config: pytest.Config) -> None:
    """Recompiles a cache entry that another process has only partly written, instead of failing the test.

    Compiled functions hold many objects. Collecting garbage among them as often as Python does takes 7% of the time.
    """
    gc.set_threshold(100_000, 50, 1000)
    for action in ("reading", "writing"):
        config.addinivalue_line("filterwarnings", f"ignore:Error {action} persistent compilation cache entry")


@pytest.hookimpl(tryfirst=True)  # before pytest looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks most parameter sets of slow tests as long."""
    mark_other_rows(items)


hypothesis.settings.register_profile("sam_optax", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("sam_optax")


@pytest.fixture
def x64() -> Iterator[None]:
    """64-bit numbers for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The loop that is used on the CPU, and the one that is used on accelerators. A CPU can run both."""
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu" if request.param == "unrolled" else "gpu")
    return request.param


MANY_MAPS = 40_000  # Linux allows 65,530, and the next compilation aborts; a compiled function takes 26
_tests = itertools.count()


@pytest.fixture(autouse=True)
def drop_compiled_functions() -> None:
    """Drops the functions that earlier tests compiled if they are many. The compilation cache restores them fast."""
    if next(_tests) % 8 == 0 and _maps() > MANY_MAPS:
        jax.clear_caches()
        gc.collect()


def _maps() -> int:
    """The number of memory maps of this process, on systems that report it."""
    maps = Path("/proc/self/maps")
    return maps.read_bytes().count(b"\n") if maps.exists() else 0
