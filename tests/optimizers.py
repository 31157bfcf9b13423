"""The table of base optimizers, at the learning rates of Optax's own tests, and the pairs with a method."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
import optax.contrib
import pytest

from tests.methods import LONG, METHODS, SHORT, WRAPPERS


class Base(NamedTuple):
    """A base optimizer; calling the object makes the optimizer.

    Attributes:
      make: from the learning rate to the optimizer.
      rate: the learning rate of Optax's own tests.
      momentum: from the state to the momentum, along which MSAM shifts the parameters; None if there is none.
      known: whether MSAM finds the momentum without `direction=`.
      targets: the targets of Optax's own tests that the optimizer reaches without a method.
    """

    make: Callable[[Any], optax.GradientTransformation]
    rate: float
    momentum: Callable[[Any], Any] | None = None
    known: bool = False
    targets: tuple[str, ...] = ("parabola", "rosenbrock")

    def __call__(self, rate: Any = None) -> optax.GradientTransformation:
        return self.make(self.rate if rate is None else rate)


def stored(name: str) -> Callable[[Any], Any]:
    """The tree that an optimizer's state keeps under this name."""
    return lambda state: optax.tree.get(state, name)


def muon_momentum(state: Any) -> Any:
    """One tree of Muon's momentum for the matrices and of its Adam's momentum for the other leaves."""

    def is_masked(node: Any) -> bool:
        return isinstance(node, optax.MaskedNode)

    matrices, others = (optax.tree.get(state.inner_states[kind], "mu") for kind in ("muon", "adam"))
    return jax.tree.map(lambda a, b: b if is_masked(a) else a, matrices, others, is_leaf=is_masked)


CONTRIB: dict[str, Base] = {
    "muon": Base(optax.contrib.muon, 1e-2, muon_momentum),
    "schedule_free": Base(lambda rate: optax.contrib.schedule_free(optax.sgd(rate), rate), 1e-2),
    "prodigy": Base(optax.contrib.prodigy, 0.1, stored("exp_avg")),
    "mechanic": Base(
        lambda rate: optax.contrib.mechanize(optax.adam(rate), weight_decay=0.0), 1.0, stored("mu"), known=True
    ),
}
"""The optimizers that `make test` combines with the methods of `SHORT` and with the wrappers, two for each."""

BASES: dict[str, Base] = CONTRIB | {
    "sgd": Base(optax.sgd, 1e-3),
    "momentum": Base(functools.partial(optax.sgd, momentum=0.9), 1e-3, stored("trace"), known=True),
    "adadelta": Base(optax.adadelta, 0.1),
    "adagrad": Base(optax.adagrad, 1.0),
    "adam": Base(optax.adam, 0.1, stored("mu"), known=True),
    "adamax": Base(optax.adamax, 0.1, stored("mu"), known=True),
    "adamw": Base(optax.adamw, 0.1, stored("mu"), known=True),
    "adopt": Base(optax.contrib.adopt, 1e-2, stored("mu"), known=True),
    "lamb": Base(optax.lamb, 1e-3, stored("mu"), known=True),
    "lars": Base(optax.lars, 1.0, stored("trace"), known=True),
    "lion": Base(functools.partial(optax.lion, weight_decay=1e-4), 1e-2, stored("mu")),
    "novograd": Base(optax.novograd, 1e-3, stored("mu")),
    "polyak_sgd": Base(optax.polyak_sgd, 1.0),
    "radam": Base(optax.radam, 5e-3, stored("mu"), known=True),
    "rmsprop": Base(optax.rmsprop, 5e-3),
    "sign_sgd": Base(optax.sign_sgd, 1e-2, targets=("parabola",)),
}
"""The optimizers that `make test-long` combines with every method."""

MORE: dict[str, Base] = {
    "acprop": Base(optax.contrib.acprop, 1e-3, targets=("parabola",)),
    "adabelief": Base(optax.adabelief, 1e-2, stored("mu")),
    "adafactor": Base(optax.adafactor, 5e-3),
    "adan": Base(optax.adan, 0.1),
    "amsgrad": Base(optax.amsgrad, 0.1, stored("mu")),
    "cocob": Base(optax.contrib.cocob, 100.0, targets=("parabola",)),
    "dadapt_adamw": Base(optax.contrib.dadapt_adamw, 0.1),
    "dog": Base(optax.contrib.dog, 1.0),
    "fromage": Base(optax.fromage, 5e-3),
    "momo": Base(optax.contrib.momo, 0.1, stored("exp_avg")),
    "nadam": Base(optax.nadam, 1e-2, stored("mu"), known=True),
    "nesterov": Base(functools.partial(optax.sgd, momentum=0.9, nesterov=True), 1e-3, stored("trace"), known=True),
    "noisy_sgd": Base(functools.partial(optax.noisy_sgd, eta=1e-4, key=0), 1e-3),
    "optimistic_adam": Base(optax.optimistic_adam_v2, 2e-3, stored("mu"), known=True),
    "sm3": Base(optax.sm3, 1.0),
    "sophia": Base(optax.contrib.sophia, 1e-2),
    "yogi": Base(optax.yogi, 0.1, stored("mu"), known=True),
}
"""The optimizers that `make test-long` combines with a few methods."""

FEW = ("sam", "gsam", "look_sam", "msam", "wsam_decoupled")

ALL: dict[str, Base] = BASES | MORE


def combine(
    method: str, base: str, made: optax.GradientTransformation, rho: Any, decoupled_rate: Any
) -> optax.GradientTransformationExtraArgs:
    """The method before or around the optimizer `made`, whose name is `base`."""
    if method.startswith("msam"):
        direction = {} if ALL[base].known else {"direction": ALL[base].momentum}
        return WRAPPERS[method](made, rho=rho, **direction)
    if method.startswith("wsam_decoupled"):
        return WRAPPERS[method](made, rho=rho, learning_rate=decoupled_rate)
    return optax.chain(METHODS[method](rho=rho), made)


def own_and_base(method: str, state: Any) -> tuple[Any, Any]:
    """The parts of a pair's state that belong to the method and to the base."""
    return (state._replace(base=None), state.base) if method in WRAPPERS else state


def averaged(base: str, state: Any, params: Any) -> Any:
    """The parameters to evaluate. With schedule-free optimizers, they are an average over all steps."""
    return optax.contrib.schedule_free_eval_params(state, params) if base == "schedule_free" else params


PAIRS = [(method, base) for method in (*METHODS, *WRAPPERS) for base in BASES]
PAIRS += [(method, base) for method in FEW for base in MORE]
PAIRS = [pair for pair in PAIRS if not (pair[0].startswith("msam") and ALL[pair[1]].momentum is None)]


def _short(method: str, base: str) -> bool:
    return base in CONTRIB and method not in LONG


def _half(method: str, base: str) -> bool:
    """Whether `make test` runs the quick tests of the pair: each method with two of `CONTRIB`, in turn."""
    return _short(method, base) and ([*SHORT, *WRAPPERS].index(method) + list(CONTRIB).index(base)) % 2 == 0


def _in_turn(method: str, base: str) -> bool:
    """Whether the pair is compiled in `make test`: SAM with all of `CONTRIB`, every second method with one in turn."""
    turn = [*SHORT, *WRAPPERS].index(method) if method not in LONG else 0
    return _short(method, base) and (
        method == "sam" or (turn % 2 == 0 and base == ("muon", "prodigy", "mechanic", "schedule_free")[turn // 2 % 4])
    )


def _asked(is_short: Callable[[str, str], bool], pairs: list[tuple[str, str]] = PAIRS) -> Any:
    rows = [pytest.param(*pair, marks=[] if is_short(*pair) else [pytest.mark.long]) for pair in pairs]
    return pytest.mark.parametrize(("method", "base"), rows)


every_pair = _asked(_half)
every_compiled_pair = _asked(_in_turn)
every_short_pair = _asked(_half, [pair for pair in PAIRS if _short(*pair)])
