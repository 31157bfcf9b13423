"""The compiled steps of the benchmark: ours, `optax.contrib.sam`'s and the gradient alone, and the memory they hold.

They are compared on a network with BatchNorm, its loss, and one batch on the device. Each step is written as its
documentation shows it, is followed by SGD, and updates BatchNorm's statistics.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from flax import nnx
from optax import GradientTransformation

import sam_optax
from experiments import models
from experiments.models import ImageShape


class Problem(NamedTuple):
    """A loss, where its minimisation starts, and a batch.

    Attributes:
      loss_fn: `loss_fn(params, model_state, images, labels)` → `(loss, model_state)`, in training or inference mode.
      params: the parameters at the start.
      model_state: BatchNorm's statistics at the start.
      batch: `(images, labels)`, float32 `(batch, height, width, channels)` and int32 `(batch,)`.
    """

    loss_fn: Callable[..., Any]
    params: nnx.State
    model_state: nnx.State
    batch: tuple[jax.Array, jax.Array]


def create(
    model: str | nnx.Module, num_classes: int, image_shape: ImageShape, batch_size: int, *, is_training: bool = True
) -> Problem:
    """The cross-entropy of a network, given or by its name, on normally distributed images with random labels."""
    network = models.create(model, num_classes, image_shape, nnx.Rngs(0)) if isinstance(model, str) else model
    network.train() if is_training else network.eval()
    graphdef, params, model_state = nnx.split(network, nnx.Param, ...)

    def loss_fn(params: nnx.State, model_state: nnx.State, images: jax.Array, labels: jax.Array) -> Any:
        moving = nnx.merge(graphdef, params, model_state, copy=True)
        losses = optax.softmax_cross_entropy_with_integer_labels(moving(images), labels)
        return jnp.mean(losses), nnx.as_pure(nnx.state(moving, nnx.Not(nnx.Param)))

    images = jax.random.normal(jax.random.key(0), (batch_size, *image_shape))
    labels = jax.random.randint(jax.random.key(1), (batch_size,), 0, num_classes)
    return Problem(loss_fn, nnx.as_pure(params), nnx.as_pure(model_state), (images, labels))


RADIUS = 0.05

Options = dict[str, Any]
"""Options of the compiler, as `jax.jit` takes them."""

MEMORY_FIRST: Options = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
"""Makes the compiler of a CPU order a program for memory; its default is to order it for time."""


def compiler_options() -> dict[str, Options | None]:
    """The options that a step is compiled with, by what they add to its name; only a CPU has other than the default."""
    return {"": None} | ({", memory first": MEMORY_FIRST} if jax.default_backend() == "cpu" else {})


Step = Callable[..., tuple[Any, jax.Array]]
"""`step(state, images, labels)` → `(state, loss)`, where state is `(params, model_state, opt_state)`."""


class Running:
    """A compiled step with the state that it updates: calling it makes one whole step.

    Attributes:
      compiled: the step; it takes over the buffers of the state.
    """

    def __init__(self, step: Step, problem: Problem, opt_state: Any, calls: int, options: Options | None) -> None:
        """From the step, what it starts with, how many calls make a whole step, and the options of the compiler."""
        self._state = jax.tree.map(jnp.copy, (problem.params, problem.model_state, opt_state))
        self._batch, self._calls = problem.batch, calls
        jitted = jax.jit(step, donate_argnums=0, compiler_options=options)
        self.compiled = jitted.lower(self._state, *self._batch).compile()

    @property
    def params(self) -> Any:
        """The parameters after the steps so far."""
        return self._state[0]

    def __call__(self) -> jax.Array:
        """Make one whole step, and return the loss of its last call."""
        for _ in range(self._calls):
            self._state, self._loss = jax.block_until_ready(self.compiled(self._state, *self._batch))
        return self._loss


def gradient(problem: Problem, options: Options | None = None) -> jax.stages.Compiled:
    """The loss, its gradient and BatchNorm's new statistics, compiled."""
    value_and_grad = jax.jit(jax.value_and_grad(problem.loss_fn, has_aux=True), compiler_options=options)
    return value_and_grad.lower(problem.params, problem.model_state, *problem.batch).compile()


def repeated(compiled: jax.stages.Compiled, times: int, *arguments: Any) -> Callable[[], None]:
    """A function that calls a compiled function several times, and waits for each result."""

    def run() -> None:
        for _ in range(times):
            jax.block_until_ready(compiled(*arguments))

    return run


def ours(
    problem: Problem, method: GradientTransformation, momentum: float | None = None, options: Options | None = None
) -> Running:
    """The step of a method of `sam_optax`."""
    tx = optax.with_extra_args_support(optax.chain(method, optax.sgd(0.1, momentum)))
    value_and_grad = sam_optax.value_and_grad(problem.loss_fn, has_aux=True)

    def step(state: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
        params, model_state, opt_state = state
        (loss, model_state), grads, grad_fn = value_and_grad(params, model_state, images, labels)
        updates, opt_state = tx.update(grads, opt_state, params, grad_fn=grad_fn, value=loss)
        return (optax.apply_updates(params, updates), model_state, opt_state), loss

    return Running(step, problem, tx.init(problem.params), 1, options)


def contrib(problem: Problem, *, opaque_mode: bool) -> Running:
    """The step of `optax.contrib.sam`.

    In opaque mode `update` makes the second pass. In the default, transparent mode, which ignores `grad_fn`, a step is
    two calls of one compiled update: the first ascends, the second descends. Between them the parameters are the
    perturbed ones, and BatchNorm's statistics are updated twice.
    """
    ascent = optax.chain(optax.contrib.normalize(), optax.sgd(RADIUS))
    tx = optax.contrib.sam(optax.sgd(0.1), ascent, opaque_mode=opaque_mode)
    value_and_grad = jax.value_and_grad(problem.loss_fn, has_aux=True)

    def step(state: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
        params, model_state, opt_state = state
        (loss, new_model_state), grads = value_and_grad(params, model_state, images, labels)

        def grad_fn(perturbed: Any, _: int) -> Any:
            return value_and_grad(perturbed, model_state, images, labels)[1]

        updates, opt_state = tx.update(grads, opt_state, params, grad_fn=grad_fn)
        return (optax.apply_updates(params, updates), new_model_state, opt_state), loss

    return Running(step, problem, tx.init(problem.params), 1 if opaque_mode else 2, None)


def peak_memory(compiled: jax.stages.Compiled) -> int | None:
    """The bytes that the device holds while the function runs, or None where the compiler does not report them.

    Temporary buffers, arguments and outputs, without the outputs that take over the buffers of donated arguments. The
    compiler's own field of that name does not count the temporary buffers on the CPU.
    """
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    outputs = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + outputs


def temporary_memory(compiled: jax.stages.Compiled) -> int | None:
    """The bytes of the temporary buffers alone, or None where the compiler does not report them."""
    analysis = compiled.memory_analysis()
    return None if analysis is None else analysis.temp_size_in_bytes


def size_of(tree: Any) -> int:
    """The bytes of all arrays of a tree."""
    return sum(x.nbytes for x in jax.tree.leaves(tree))
