"""Gradient accumulation: an update whose batch goes through the network in micro-batches.

Both passes are those of the whole batch: the perturbation is computed from the mean of all clean gradients, and the
update from the mean of all perturbed gradients. The host loops over the micro-batches, because on the CPU the gradient
of a convolution is many times slower inside a compiled loop. The compiled functions therefore do not depend on the
batch size, and one set of them serves every stage of a batch plan. Both passes call the same compiled gradient, except
for Functional SAM, whose second pass is not the gradient at the perturbed parameters.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_optax
from experiments.training import prefetch
from experiments.training.loss_and_update import Decision, StepOutput
from experiments.training.optimizer import Optimizer, inject
from experiments.training.progress import GRADIENTS, term_names
from experiments.training.sharding import Sharding
from experiments.training.step import Metrics, Prepare, TrainState, finished
from sam_optax import GradFn, second_pass

_SQUARE = "square"  # the key of the squared norm of a micro-batch's gradient, present if noise is measured


class Sums(NamedTuple):
    """The sums over the micro-batches of a batch, in float32 or wider.

    Attributes:
      gradient: the sum of the gradients of the micro-batches' mean losses.
      model_state: the sum of BatchNorm's statistics after each micro-batch; each starts from those before the step.
      figures: the sums of the mean losses and errors, and of the squared gradient norms if noise is measured.
    """

    gradient: Any
    model_state: Any
    figures: Any

    def added(self, other: "Sums") -> "Sums":
        """Returns these sums plus those of another micro-batch."""
        return jax.tree.map(lambda a, b: a + b.astype(_wide(a)), self, other)


@dataclass(eq=False)
class MicroBatchStep:
    """An update in micro-batches; it is called like the step that `step.train_step` returns.

    The batch consists of host arrays. Its micro-batches are sent to the device one at a time, two ahead of the one in
    use. A batch that is no larger than a micro-batch is not split.

    Attributes:
      passes: the function that computes a micro-batch's gradients, made by `loss_and_update.passes`.
      tx: the optimizer, made by `optimizer.create`. Its decision to make a second pass is static.
      prepare: as in `step.train_step`; it is called with one micro-batch.
      micro_batch: the number of examples in a micro-batch, over all processes.
      sharding: the sharding of the state and the micro-batches.
      skips_nonfinite: as in `step.train_step`.
      measures_noise: whether the metrics hold the two terms of the gradient noise of each pass, estimated from the
        differences between the micro-batches' gradients. Every batch then has at least two micro-batches.
      functional: whether the second pass is that of Functional SAM.
    """

    passes: Callable[..., Any]
    tx: Optimizer
    prepare: Prepare
    micro_batch: int
    sharding: Sharding = Sharding()
    skips_nonfinite: bool = False
    measures_noise: bool = False
    functional: bool = False

    def __post_init__(self) -> None:
        self._size = self.micro_batch // self.sharding.part[1]
        self._send, self._keep = self.sharding.batch, self.sharding.kept
        self._zeros = jax.jit(self._zeros_like, keep_unused=True)  # puts them on the devices of the state
        self._add = jax.jit(self._add_gradient, donate_argnums=0)
        self._ascend = jax.jit(self._perturbed_params)
        self._add_second = jax.jit(self._add_functional, donate_argnums=0)
        self._update = jax.jit(self._updated, donate_argnums=0, static_argnames="perturb")

    def __call__(
        self, state: TrainState, batch: Any, now: Any, constants: Any, halted: Any = None, *, perturb: Decision = None
    ) -> tuple[TrainState, Metrics]:
        """Makes the step."""
        count = np.float32(max(1, len(batch["position"]) // self._size))
        clean = self._zeros(state)
        for part in self._parts(batch):
            clean = self._add(clean, state.params, state.model_state, part, constants)
        passes = [clean]
        if perturb:
            moved, perturbed = self._ascend(state, clean, count, now), self._zeros(state)
            for part in self._parts(batch):
                if self.functional:
                    perturbed = self._add_second(perturbed, state, moved, part, constants)
                else:
                    perturbed = self._add(perturbed, moved, state.model_state, part, constants)
            passes.append(perturbed._replace(model_state=()))
        return self._update(state, passes, count, now, halted, perturb=perturb)

    def _parts(self, batch: dict[str, np.ndarray]) -> Iterator[Any]:
        starts = range(0, len(batch["position"]), self._size)
        cut = ({name: rows[start : start + self._size] for name, rows in batch.items()} for start in starts)
        return prefetch.ahead(cut, self._send)

    def _zeros_like(self, state: TrainState) -> Sums:
        gradient, model_state = jax.tree.map(lambda x: jnp.zeros(x.shape, _wide(x)), state[:2])
        return self._keep(Sums(gradient, model_state, self._figures(gradient, loss=jnp.zeros(()), error=jnp.zeros(()))))

    def _add_gradient(self, sums: Sums, params: Any, model_state: Any, part: Any, constants: Any) -> Sums:
        (loss, (error, after)), gradient, _ = self.passes(params, model_state, *self.prepare(part, constants))
        return self._keep(sums.added(Sums(gradient, after, self._figures(gradient, loss=loss, error=error))))

    def _add_functional(self, sums: Sums, state: TrainState, moved: Any, part: Any, constants: Any) -> Sums:
        *_, grad_fn = self.passes(state.params, state.model_state, *self.prepare(part, constants))
        gradient, loss, _ = grad_fn.measured(moved)
        figures = self._figures(gradient, loss=loss, error=jnp.zeros(()))
        return self._keep(sums.added(Sums(gradient, state.model_state, figures)))

    def _figures(self, gradient: Any, **figures: jax.Array) -> dict[str, jax.Array]:
        """Returns a micro-batch's figures, with the squared norm of its gradient if noise is measured."""
        return figures | ({_SQUARE: optax.tree.norm(gradient, squared=True)} if self.measures_noise else {})

    def _perturbed_params(self, state: TrainState, sums: Sums, count: Any, now: Any) -> Any:
        """Returns the parameters of the second pass, `w + ε`."""
        clean, loss = _mean(sums.gradient, count, state.params), sums.figures["loss"] / count
        opt_state = inject(state.opt_state, now)
        moved, _ = sam_optax.two_phases(self.tx).ascend(clean, opt_state, state.params, perturb=True, value=loss)
        return self._keep(Sums(moved, (), ())).gradient

    def _updated(
        self, state: TrainState, passes: list[Sums], count: Any, now: Any, halted: Any, *, perturb: Decision
    ) -> tuple[TrainState, Metrics]:
        gradients = [_mean(sums.gradient, count, state.params) for sums in passes]
        losses = [sums.figures["loss"] / count for sums in passes]
        second = GradFn(second_pass.given, (gradients[1], losses[1])) if perturb else None
        opt_state = inject(state.opt_state, now)
        extra = {"grad_fn": second, "perturb": perturb, "value": losses[0]}
        updates, opt_state = self.tx.update(gradients[0], opt_state, state.params, **extra)
        model_state, error = _mean(passes[0].model_state, count, state.model_state), passes[0].figures["error"] / count
        output = StepOutput(losses[0], error, gradients[0], updates, model_state, opt_state)
        after, metrics = finished(state, output, perturb, halted, self.skips_nonfinite)
        for name, sums, gradient in zip(GRADIENTS, passes, gradients, strict=False) if self.measures_noise else ():
            square, of_mean = sums.figures[_SQUARE] / count, optax.tree.norm(gradient, squared=True)
            terms = sam_optax.noise_terms(square, self.micro_batch, of_mean, self.micro_batch * count)
            metrics |= dict(zip(term_names(name), map(jnp.asarray, terms), strict=True))
        return self._keep(after), metrics


def _mean(total: Any, count: Any, like: Any) -> Any:
    return jax.tree.map(lambda x, of: (x / count).astype(of.dtype), total, like)


def _wide(x: jax.Array) -> Any:
    return jnp.promote_types(x.dtype, jnp.float32)
