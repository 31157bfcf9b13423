"""The step of the next stage is compiled once while this stage trains, and its errors are raised."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.config import Config
from experiments.runner import program, run
from experiments.runner.program import build
from experiments.training.prefetch import PrecompiledStep

HYPERPARAMETERS = {"learning_rate": np.float32(0.1)}


class Counted:
    """A step that records the batch sizes, decisions and threads for which it was traced."""

    def __init__(self) -> None:
        self.traced: list[tuple[int, bool | None]] = []
        self.threads: set[str] = set()

    def __call__(
        self, state: Any, batch: Any, hyperparameters: Any, constants: Any, halted: Any, *, perturb: bool | None = None
    ) -> Any:
        self.traced.append((len(batch["position"]), perturb))
        self.threads.add(threading.current_thread().name)
        moved = jax.tree.map(lambda x: x - hyperparameters["learning_rate"] * jnp.sum(batch["image"] * 1.0), state)
        return moved, {"loss": jnp.sum(constants)}


def made(decisions: Callable[[int], Any] = lambda size: (True,)) -> tuple[Counted, PrecompiledStep]:
    counted = Counted()
    return counted, PrecompiledStep(
        jax.jit(counted, donate_argnums=0, static_argnames="perturb"), jnp.ones(3), decisions
    )


def batch(size: int) -> Any:
    return {"image": np.ones((size, 2), np.uint8), "position": np.arange(size)}


@contextmanager
def compilations() -> Iterator[list[str]]:
    """Collects the events of JAX's compiler within the block."""
    events: list[str] = []

    def listen(name: str, seconds: float, **_: Any) -> None:
        del seconds
        if "backend_compile" in name or "jaxpr_trace" in name:
            events.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield events
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("put", [lambda batch: batch, jax.device_put], ids=["host", "device"])
def test_a_precompiled_step_is_neither_traced_nor_compiled_again(put: Callable[[Any], Any]) -> None:
    counted, step = made(decisions=lambda size: (True, False))
    state, _ = step({"w": jnp.ones(4)}, put(batch(8)), HYPERPARAMETERS, perturb=True)
    step.compile_ahead(16)
    step.compile_ahead(16)
    step._under_way[16].result()
    assert counted.traced == [(8, True), (16, True), (16, False)]
    assert {name.startswith("compile") for name in counted.threads} == {True, False}
    sent = put(batch(16))
    with compilations() as events:
        for perturb in (True, False, True):
            state, _ = step(state, sent, HYPERPARAMETERS, perturb=perturb)
    assert events == []
    step.close()


def test_precompilation_respects_64_bit_mode(x64: None) -> None:
    counted, step = made()
    state, _ = step({"w": jnp.ones(4)}, batch(8), {"learning_rate": np.float64(0.1)}, perturb=True)
    assert jax.tree.leaves(state)[0].dtype == jnp.float64
    step.compile_ahead(16)
    step(state, batch(16), {"learning_rate": np.float64(0.1)}, perturb=True)
    assert counted.traced == [(8, True), (16, True)]
    step.close()


def test_errors_of_the_background_compilation_are_raised_at_the_step() -> None:
    def decisions(size: int) -> Any:
        raise RuntimeError(f"no memory for {size}")

    _, step = made(decisions)
    state, _ = step({"w": jnp.ones(4)}, batch(8), HYPERPARAMETERS, perturb=True)
    step.compile_ahead(16)
    state, _ = step(state, batch(8), HYPERPARAMETERS, perturb=True)
    with pytest.raises(RuntimeError, match="no memory for 16"):
        step(state, batch(16), HYPERPARAMETERS, perturb=True)
    step.close()


def test_compiling_ahead_before_the_first_step_is_refused() -> None:
    with pytest.raises(ValueError, match=r"compile_ahead\(16\) is called before the first step"):
        made()[1].compile_ahead(16)


def test_a_run_compiles_each_batch_size_before_its_stage_and_leaves_no_thread(
    tiny: str, started: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    program._training.cache_clear()  # other tests may have compiled the same step for other sizes
    asked: list[int] = []
    compile_ahead = PrecompiledStep.compile_ahead
    monkeypatch.setattr(
        PrecompiledStep, "compile_ahead", lambda step, size: asked.append(size) or compile_ahead(step, size)
    )
    config = Config.from_settings(
        model=tiny, batch_plan="2x16,1x32,1x64,1x32", method="sam", when="every:3", train_examples=64
    )
    dataset = run.load(config)
    step: Any = build(config, dataset)[1].step
    run.train(config, dataset)
    assert asked == [32, 32, 64, 32]
    assert started() == []
    sizes = step.compiled._cache_size()
    run.train(config, dataset)
    assert step.compiled._cache_size() == sizes == 5  # there is one step with 64 examples, without a second pass


def test_a_run_that_fails_leaves_no_thread(tiny: str, started: Callable[[], list[str]]) -> None:
    config = Config.from_settings(model=tiny, batch_plan="1x16,1x32", method="sgd", train_examples=64)

    def write(record: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.train(config, run.load(config), write=write)
    assert started() == []


@pytest.mark.parametrize(
    ("when", "of_16", "of_32"),
    [("always", {True}, {True}), ("every:2", {True, False}, {True, False}), ("after:4", {False}, {True})],
)
def test_only_the_perturb_decisions_of_a_stage_are_compiled(
    tiny: str, when: str, of_16: set[bool], of_32: set[bool]
) -> None:
    config = Config.from_settings(model=tiny, batch_plan="1x16,1x32", method="sam", when=when, train_examples=64)
    step: Any = build(config, run.load(config))[1].step
    assert (step.decisions(16), step.decisions(32)) == (of_16, of_32)
