"""The compiled steps of the benchmark: ours, `optax.contrib.sam`'s and the gradient alone.

They are compared on a network with BatchNorm, its loss, and one batch on the device. Each step is written as its
documentation has it, is followed by SGD, and updates BatchNorm's statistics.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from flax import nnx

import sam_optax
from experiments import models


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
    model: str, num_classes: int, image_shape: tuple[int, int, int], batch_size: int, *, is_training: bool = True
) -> Problem:
    """The cross-entropy of the network `model` on normally distributed images with arbitrary labels."""
    network = models.create(model, num_classes, image_shape, nnx.Rngs(0))
    return of(network, num_classes, image_shape, batch_size, is_training=is_training)


def of(
    network: nnx.Module,
    num_classes: int,
    image_shape: tuple[int, int, int],
    batch_size: int,
    *,
    is_training: bool = True,
) -> Problem:
    """The same of a network that is there."""
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

MEMORY_FIRST = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
"""What tells the compiler of a CPU to order a program for memory; by itself it orders one for time."""

Step = Callable[..., tuple[Any, jax.Array]]
"""`step(state, images, labels)` → `(state, loss)`, where state is `(params, model_state, opt_state)`."""

Options = dict[str, Any]
"""What the compiler is told, as `jax.jit` takes it."""


class Running:
    """A compiled step with the state that it moves on: calling it makes one whole step.

    Attributes:
      compiled: the step; it takes over the buffers of the state.
    """

    def __init__(
        self, step: Step, problem: Problem, opt_state: Any, calls: int = 1, options: Options | None = None
    ) -> None:
        """From the step, what it starts with, how many calls of it make a whole one, and what the compiler is told."""
        started = (problem.params, problem.model_state, opt_state)
        self._state = jax.tree.map(lambda x: x.copy(), started)
        self._batch, self._calls = problem.batch, calls
        jitted = jax.jit(step, donate_argnums=0, compiler_options=options)
        self.compiled = jitted.lower(self._state, *self._batch).compile()

    @property
    def params(self) -> Any:
        """The parameters after the steps so far."""
        return self._state[0]

    def __call__(self) -> jax.Array:
        """Make one whole step, and return its loss, that of the last call."""
        loss = None
        for _ in range(self._calls):
            self._state, loss = jax.block_until_ready(self.compiled(self._state, *self._batch))
        return loss


def memory_can_be_first() -> bool:
    """Whether there is anything to tell the compiler: it is that of a CPU."""
    return jax.default_backend() == "cpu"


def two_gradients(problem: Problem) -> Callable[[], None]:
    """The loss, its gradient and BatchNorm's new statistics, twice: what no step with two passes can do without."""
    arguments = (problem.params, problem.model_state, *problem.batch)
    compiled = gradient(problem)

    def run() -> None:
        for _ in range(2):
            jax.block_until_ready(compiled(*arguments))

    return run


def gradient(problem: Problem, options: Options | None = None) -> jax.stages.Compiled:
    """The loss, its gradient and BatchNorm's new statistics, compiled."""
    arguments = (problem.params, problem.model_state, *problem.batch)
    value_and_grad = jax.value_and_grad(problem.loss_fn, has_aux=True)
    return jax.jit(value_and_grad, compiler_options=options).lower(*arguments).compile()


def descent(problem: Problem) -> Running:
    """The step of SGD alone."""
    return ours(problem, optax.with_extra_args_support(optax.identity()))


def ours(
    problem: Problem,
    method: optax.GradientTransformationExtraArgs,
    momentum: float | None = None,
    options: Options | None = None,
) -> Running:
    """The step of a method of `sam_optax`."""
    tx = optax.chain(method, _base(momentum))
    value_and_grad = sam_optax.value_and_grad(problem.loss_fn, has_aux=True)

    def step(state: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
        params, model_state, opt_state = state
        (loss, model_state), grads, grad_fn = value_and_grad(params, model_state, images, labels)
        updates, opt_state = tx.update(grads, opt_state, params, grad_fn=grad_fn, value=loss)
        return (optax.apply_updates(params, updates), model_state, opt_state), loss

    return Running(step, problem, tx.init(problem.params), options=options)


def contrib_opaque(problem: Problem) -> Running:
    """The step of `optax.contrib.sam` in opaque mode, which makes the second pass inside `update`."""
    tx = optax.contrib.sam(_base(), _ascent(), opaque_mode=True)
    first_pass = jax.value_and_grad(problem.loss_fn, has_aux=True)
    second_pass = jax.grad(problem.loss_fn, has_aux=True)

    def step(state: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
        params, model_state, opt_state = state

        def grad_fn(moved: Any, number: int) -> Any:
            del number
            return second_pass(moved, model_state, images, labels)[0]

        (loss, moved_on), grads = first_pass(params, model_state, images, labels)
        updates, opt_state = tx.update(grads, opt_state, params, grad_fn=grad_fn)
        return (optax.apply_updates(params, updates), moved_on, opt_state), loss

    return Running(step, problem, tx.init(problem.params))


def contrib_default(problem: Problem) -> Running:
    """The step of `optax.contrib.sam` in its default, transparent mode: two calls of one compiled update.

    The first ascends, the second descends. Between them the parameters are the perturbed ones, and BatchNorm's
    statistics move on twice.
    """
    tx = optax.contrib.sam(_base(), _ascent())
    value_and_grad = jax.value_and_grad(problem.loss_fn, has_aux=True)

    def step(state: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
        params, model_state, opt_state = state
        (loss, model_state), grads = value_and_grad(params, model_state, images, labels)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), model_state, opt_state), loss

    return Running(step, problem, tx.init(problem.params), calls=2)


def _base(momentum: float | None = None) -> optax.GradientTransformation:
    return optax.sgd(0.1, momentum)


def _ascent() -> optax.GradientTransformation:
    return optax.chain(optax.contrib.normalize(), optax.sgd(RADIUS))
