"""Compiles the steps that the benchmark compares, and reports their memory use.

The steps are ours, those of `optax.contrib.sam`, and the gradient alone. They are compared on the loss of a network
with BatchNorm, on one batch that stays on the device. Each step is written as in the documentation of its library,
applies SGD, and updates the statistics of BatchNorm.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from optax import GradientTransformation

import sam_optax
from experiments import models
from experiments.models import ImageShape


class Problem(NamedTuple):
    """A loss, the initial values of its arguments, and a batch.

    Attributes:
      loss_fn: `loss_fn(params, model_state, images, labels)` → `(loss, model_state)`; the network is in training or
        inference mode.
      params: the initial parameters.
      model_state: the initial statistics of BatchNorm.
      batch: `(images, labels)`, float32 `(batch, height, width, channels)` and int32 `(batch,)`.
    """

    loss_fn: Callable[..., Any]
    params: nnx.State
    model_state: nnx.State
    batch: tuple[jax.Array, jax.Array]


def create(
    model: str | nnx.Module, num_classes: int, image_shape: ImageShape, batch_size: int, *, is_training: bool = True
) -> Problem:
    """Creates the cross-entropy of a network, given as a module or by name, on Gaussian images with random labels."""
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


def divided(problem: Problem) -> Problem:
    """Returns the problem with its batch divided among all devices, and copies of its parameters on each."""
    if jax.local_device_count() == 1:
        return problem
    mesh = jax.make_mesh((jax.local_device_count(),), ("data",), axis_types=(AxisType.Auto,))
    copied, parts = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    params, model_state = jax.device_put((problem.params, problem.model_state), copied)
    return problem._replace(params=params, model_state=model_state, batch=jax.device_put(problem.batch, parts))


RADIUS = 0.05

Options = dict[str, Any]
"""Compiler options, in the form that `jax.jit` accepts."""

MEMORY_FIRST: Options = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
"""Makes XLA's CPU compiler schedule a program to use little memory; by default it schedules for speed."""


def compiler_options() -> dict[str, Options | None]:
    """Returns the sets of compiler options to measure, keyed by a suffix for the step's name; a CPU has two sets."""
    return {"": None} | ({", memory first": MEMORY_FIRST} if jax.default_backend() == "cpu" else {})


Step = Callable[..., tuple[Any, jax.Array]]
"""`step(state, images, labels)` → `(state, loss)`, where state is `(params, model_state, opt_state)`."""


class Running:
    """A compiled step with the state that it updates; calling it makes one whole step.

    Attributes:
      compiled: the compiled step; the buffers of the state are donated to it.
    """

    def __init__(self, step: Step, problem: Problem, opt_state: Any, calls: int, options: Options | None) -> None:
        """Compiles the step for the problem; `calls` is the number of calls that make a whole step."""
        self._state = jax.tree.map(jnp.copy, (problem.params, problem.model_state, opt_state))
        self._batch, self._calls = problem.batch, calls
        jitted = jax.jit(step, donate_argnums=0, compiler_options=options)
        self.compiled = jitted.lower(self._state, *self._batch).compile()

    @property
    def params(self) -> Any:
        """The parameters after the steps so far."""
        return self._state[0]

    def __call__(self) -> jax.Array:
        """Makes one whole step, and returns the loss of its last call."""
        for _ in range(self._calls):
            self._state, self._loss = jax.block_until_ready(self.compiled(self._state, *self._batch))
        return self._loss

    def dispatch(self) -> jax.Array:
        """Makes one call of the compiled step without waiting for its result, and returns the loss."""
        self._state, loss = self.compiled(self._state, *self._batch)
        return loss


def gradient(problem: Problem, options: Options | None = None) -> jax.stages.Compiled:
    """Compiles the function that returns the loss, its gradient and the new statistics of BatchNorm."""
    value_and_grad = jax.jit(jax.value_and_grad(problem.loss_fn, has_aux=True), compiler_options=options)
    return value_and_grad.lower(problem.params, problem.model_state, *problem.batch).compile()


def repeated(compiled: jax.stages.Compiled, times: int, *arguments: Any) -> Callable[[], None]:
    """Returns a function that calls a compiled function several times, and waits for each result."""

    def run() -> None:
        for _ in range(times):
            jax.block_until_ready(compiled(*arguments))

    return run


def ours(
    problem: Problem,
    method: GradientTransformation,
    momentum: float | None = None,
    options: Options | None = None,
    repeat: int = 1,
) -> Running:
    """Returns the step of a method of `sam_optax`.

    Args:
      problem: the loss, its initial arguments, and the batch.
      method: the method.
      momentum: the momentum of SGD, or None.
      options: compiler options, or None.
      repeat: the number of steps that one call makes on the same batch, in a loop of the compiled program.
    """
    tx = optax.with_extra_args_support(optax.chain(method, optax.sgd(0.1, momentum)))
    value_and_grad = sam_optax.value_and_grad(problem.loss_fn, has_aux=True)

    def step(state: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
        params, model_state, opt_state = state
        (loss, model_state), grads, grad_fn = value_and_grad(params, model_state, images, labels)
        updates, opt_state = tx.update(grads, opt_state, params, grad_fn=grad_fn, value=loss)
        return (optax.apply_updates(params, updates), model_state, opt_state), loss

    def steps(state: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
        state, losses = jax.lax.scan(lambda state, _: step(state, images, labels), state, length=repeat)
        return state, losses[-1]

    return Running(step if repeat == 1 else steps, problem, tx.init(problem.params), 1, options)


def contrib(problem: Problem, *, opaque_mode: bool) -> Running:
    """Returns the step of `optax.contrib.sam`.

    In opaque mode, `update` makes the second pass. The default is transparent mode, which ignores `grad_fn`: a step is
    two calls of one compiled update. The first call ascends and the second descends. Between the calls the state holds
    the perturbed parameters, and the statistics of BatchNorm are updated twice.
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
    """Returns the number of bytes that the device holds while the function runs, or None if it is not reported.

    The number includes temporary buffers, arguments, and the outputs that do not reuse the buffer of a donated
    argument. The field `peak_memory_in_bytes` of the analysis omits the temporary buffers on the CPU.
    """
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    outputs = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + outputs


def temporary_memory(compiled: jax.stages.Compiled) -> int | None:
    """Returns the number of bytes in temporary buffers, or None if the compiler does not report it."""
    analysis = compiled.memory_analysis()
    return None if analysis is None else analysis.temp_size_in_bytes


def size_of(tree: Any) -> int:
    """Returns the total number of bytes in the arrays of a pytree."""
    return sum(x.nbytes for x in jax.tree.leaves(tree))
