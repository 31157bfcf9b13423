"""An update of a batch that goes through the network a few examples at a time.

Both passes are those of the whole batch: the perturbation is made of the mean of all clean gradients, and the descent
of the mean of all perturbed ones. The loop over the parts is the host's, since on the CPU the gradient of a convolution
is many times slower inside a compiled loop; so what is compiled does not depend on the batch size, and one set of
functions serves every stage of a plan.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_optax
from experiments.training import prefetch
from experiments.training.optimizer import inject
from experiments.training.progress import GRADIENTS, term_names
from experiments.training.step import Metrics, Prepare, TrainState, gradient_metrics, if_finite, without_halt
from sam_optax import noise_terms

HostBatch = dict[str, np.ndarray]
Now = tuple[Any, dict[str, Any]]
"""How many parts the batch has, and the hyperparameters."""
_SQUARE = "square"  # among the figures of a part, where noise is measured: the squared norm of its gradient


class Sums(NamedTuple):
    """What the parts of a batch leave, added up in float32 or wider.

    Attributes:
      gradient: of the parts' mean losses.
      model_state: BatchNorm's statistics, which each part moves on from those before the step.
      figures: the parts' mean losses and errors, and the squared norms of their gradients where noise is measured.
    """

    gradient: Any
    model_state: Any
    figures: Any


class MicroBatchStep:
    """The update, called as what `step.train_step` makes: `step(state, batch, hyperparameters, constants, perturb=…)`.

    The batch is one of host arrays, of which a part at a time goes to the device, two of them ahead of their turn. A
    batch of at most a part's size stays whole.
    """

    def __init__(
        self,
        passes: Callable[..., Any],
        tx: optax.GradientTransformationExtraArgs,
        prepare: Prepare,
        size: int,
        *,
        send: Callable[[HostBatch], Any] = jax.device_put,
        keep: Callable[[Any], Any] = lambda state: state,
        skips_nonfinite: bool = False,
        noise_of: int | None = None,
    ) -> None:
        """From what makes the gradients of a part to what makes an update of their sums.

        Args:
          passes: the gradients of a part, made by `descent.passes`.
          tx: the optimizer, made by `optimizer.create`. Its decision to make a second pass is static.
          prepare: as in `step.train_step`; it sees one part.
          size: how many examples a part has, those of this process alone.
          send: puts a part on the device.
          keep: `Sharding.kept`.
          skips_nonfinite: as in `step.train_step`.
          noise_of: how many examples a part has, those of all processes: the metrics then tell the two terms of the
            noise of each pass, by how the gradients of the parts differ. None: it is not measured. A batch has at
            least two parts then.
        """
        self._passes, self._tx, self._prepare, self._size = passes, tx, prepare, size
        self._send, self._keep, self._skips_nonfinite, self._noise_of = send, keep, skips_nonfinite, noise_of
        self._zeros = jax.jit(self._zeros_like, keep_unused=True)  # so that they lie where the state lies
        self._clean = jax.jit(self._add_clean, donate_argnums=0)
        self._ascend = jax.jit(self._perturbed_params)
        self._perturbed = jax.jit(self._add_perturbed, donate_argnums=0)
        self._update = jax.jit(self._descended, donate_argnums=0, static_argnames="perturb")

    def __call__(
        self,
        state: TrainState,
        batch: HostBatch,
        hyperparameters: dict[str, Any],
        constants: Any,
        perturb: bool | None = None,
    ) -> tuple[TrainState, Metrics]:
        """Make the step."""
        params, model_state, _ = state
        count = max(1, len(batch["position"]) // self._size)
        now = np.float32(count), hyperparameters
        sums, perturbed = self._zeros(state), None
        for part in self._parts(batch):
            sums = self._clean(sums, params, model_state, part, constants)
        if perturb:
            at = params, self._ascend(state, sums, now), model_state
            zeros = self._zeros(state)
            perturbed = Sums(zeros.gradient, (), {name: x for name, x in zeros.figures.items() if name != "error"})
            for part in self._parts(batch):
                perturbed = self._perturbed(perturbed, at, part, constants)
        return self._update(state, sums, perturbed, now, perturb=perturb)

    def _parts(self, batch: HostBatch) -> Iterator[Any]:
        starts = range(0, len(batch["position"]), self._size)
        cut = ({name: rows[start : start + self._size] for name, rows in batch.items()} for start in starts)
        return prefetch.ahead(cut, self._send)

    def _zeros_like(self, state: TrainState) -> Sums:
        gradient, model_state = (jax.tree.map(_zero, tree) for tree in (state.params, state.model_state))
        figures = {"loss": jnp.zeros(()), "error": jnp.zeros(())} | self._square(gradient)
        return self._keep(Sums(gradient, model_state, figures))

    def _add_clean(self, sums: Sums, params: Any, model_state: Any, part: Any, constants: Any) -> Sums:
        call = (model_state, *self._prepare(part, constants))
        (loss, (error, moved_on)), gradient, _ = self._passes(params, *call)
        figures = {"loss": loss, "error": error} | self._square(gradient)
        return self._keep(_added(sums, Sums(gradient, moved_on, figures)))

    def _add_perturbed(self, sums: Sums, at: tuple[Any, Any, Any], part: Any, constants: Any) -> Sums:
        params, moved, model_state = at
        *_, grad_fn = self._passes(params, model_state, *self._prepare(part, constants))
        gradient, loss, _ = grad_fn.measured(moved)
        return self._keep(_added(sums, Sums(gradient, (), {"loss": loss} | self._square(gradient))))

    def _square(self, gradient: Any) -> dict[str, jax.Array]:
        """The squared norm of a gradient, where noise is measured."""
        return {} if self._noise_of is None else {_SQUARE: _squared_norm(gradient)}

    def _perturbed_params(self, state: TrainState, sums: Sums, now: Now) -> Any:
        """The parameters of the second pass, `w + ε`."""
        clean, opt_state, loss = self._clean_step(state, sums, now)
        phases = sam_optax.two_phases(self._tx)
        moved, _ = phases.ascend(clean, opt_state, state.params, perturb=True, value=loss)
        return self._keep(Sums(moved, (), ())).gradient

    def _descended(
        self, state: TrainState, sums: Sums, perturbed: Sums | None, now: Now, perturb: bool | None
    ) -> tuple[TrainState, Metrics]:
        count, hyperparameters = now
        clean, opt_state, loss = self._clean_step(state, sums, now)
        if perturbed is None:
            gradient = None
            updates, opt_state = self._tx.update(clean, opt_state, state.params, perturb=perturb, value=loss)
        else:
            gradient = _mean(perturbed.gradient, count, state.params)
            phases = sam_optax.two_phases(self._tx)
            _, pending = phases.ascend(clean, opt_state, state.params, perturb=True, value=loss)
            losses = {"perturbed_value": perturbed.figures["loss"] / count, "value": loss}
            updates, opt_state = phases.descend(gradient, pending, state.params, **losses)
        model_state = _mean(sums.model_state, count, state.model_state)
        after = TrainState(optax.apply_updates(state.params, updates), model_state, opt_state)
        metrics = {name: sums.figures[name] / count for name in ("loss", "error")}
        numbers = metrics["loss"], clean, updates
        metrics |= gradient_metrics(clean, opt_state, perturb)
        if self._skips_nonfinite:
            after, metrics["skipped"] = if_finite(after, state, numbers, without_halt(hyperparameters)[1])
        if self._noise_of is not None:
            passes = [(sums, clean)] if perturbed is None else [(sums, clean), (perturbed, gradient)]
            for name, (parts, mean) in zip(GRADIENTS, passes, strict=False):
                squares = parts.figures[_SQUARE] / count, _squared_norm(mean)
                terms = noise_terms(squares[0], self._noise_of, squares[1], self._noise_of * count)
                metrics |= dict(zip(term_names(name), terms, strict=True))
        return self._keep(after), metrics

    def _clean_step(self, state: TrainState, sums: Sums, now: Now) -> tuple[Any, Any, jax.Array]:
        """The clean gradient, the optimizer's state with the hyperparameters of the step, and the clean loss."""
        count, hyperparameters = now
        clean = _mean(sums.gradient, count, state.params)
        opt_state = inject(state.opt_state, without_halt(hyperparameters)[0])
        return clean, opt_state, sums.figures["loss"] / count


def _zero(x: jax.Array) -> jax.Array:
    return jnp.zeros(x.shape, _wide(x))


def _added(total: Any, found: Any) -> Any:
    return jax.tree.map(lambda a, b: a + b.astype(_wide(a)), total, found)


def _mean(total: Any, count: Any, like: Any) -> Any:
    return jax.tree.map(lambda x, of: (x / count).astype(of.dtype), total, like)


def _squared_norm(tree: Any) -> jax.Array:
    return jnp.asarray(sum(jnp.sum(jnp.square(x.astype(_wide(x)))) for x in jax.tree.leaves(tree)))


def _wide(x: jax.Array) -> Any:
    return jnp.promote_types(x.dtype, jnp.float32)
