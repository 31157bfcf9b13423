"""The table of methods: every combiner with every perturbation, plain, masked, and with a schedule of the radius."""

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import optax
import pytest

import sam_optax
from sam_optax.policies import Policy, always
from tests.selection import some_of

COMBINERS: dict[str, Callable[[], sam_optax.Combiner | sam_optax.OffsetCombiner]] = {
    "perturbed": sam_optax.perturbed_gradient,
    "gap": sam_optax.gap_guided,
    "gap_clean": sam_optax.gap_guided_clean,
    "weighted": sam_optax.weighted,
    "stabilized": sam_optax.stabilized,
    "reuse": sam_optax.reuse,
    "explicit": lambda: sam_optax.explicit_direction(1.5),
}

PERTURBATIONS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "normalized": sam_optax.normalized_ascent,
    "adaptive": functools.partial(sam_optax.adaptive_ascent, exempt=sam_optax.biases),
    "ported": sam_optax.ported_adaptive_ascent,
    "friendly": sam_optax.friendly_ascent,
    "smoothed": sam_optax.smoothed_ascent,
    "unified": sam_optax.unified_ascent,
    "loss_increase": lambda rho: sam_optax.loss_increase_ascent(0.35, rho),
}

KERNELS = sam_optax.by_path(lambda path: path.endswith("kernel"))


def rising(start: float) -> optax.Schedule:
    """A schedule that rounds only once in float32, so that programs with and without fused operations agree."""
    return lambda count: start * (1 + count / 16)


def repeated_sam(rho: Any, when: Policy = always(), mask: Any = None) -> optax.GradientTransformationExtraArgs:
    """SAM with two ascent steps, whose lengths add up to the radius."""
    adversary = optax.chain(sam_optax.normalized_ascent(rho / 2), optax.scale(-1))
    ascent = sam_optax.repeated_ascent(adversary, steps=2)
    return sam_optax.sharpness_aware(ascent, sam_optax.perturbed_gradient(), when, mask)


class Product(NamedTuple):
    """A method given by its parts; calling the object makes the method."""

    combiner: str
    perturbation: str
    variant: str

    def __call__(self, rho: Any, when: Policy = always()) -> optax.GradientTransformationExtraArgs:
        radius = rising(rho) if self.variant == "scheduled" else rho
        mask = KERNELS if self.variant == "masked" else None
        return sam_optax.sharpness_aware(
            PERTURBATIONS[self.perturbation](radius), COMBINERS[self.combiner](), when, mask
        )


VARIANTS = ("plain", "masked", "scheduled")


def _covering() -> list[Product]:
    """Every combiner with one perturbation and every perturbation with one combiner, the variants in turn."""
    combiners, perturbations = list(enumerate(COMBINERS)), list(enumerate(PERTURBATIONS))
    pairs = [(*combiners[i], *perturbations[(i + 1) % 7]) for i in range(7)]
    return [Product(c, p, VARIANTS[(i + j) % 3]) for i, c, j, p in pairs]


def _key(product: Product) -> str:
    return "-".join(product)


SAME = {
    "sam": Product("perturbed", "normalized", "plain"),
    "asam": Product("perturbed", "adaptive", "plain"),
    "ported_asam": Product("perturbed", "ported", "plain"),
    "friendly_sam": Product("perturbed", "friendly", "plain"),
    "vasso": Product("perturbed", "smoothed", "plain"),
    "unified_sam": Product("perturbed", "unified", "plain"),
    "le_sam": Product("perturbed", "loss_increase", "plain"),
    "gsam": Product("gap", "normalized", "plain"),
    "gsam_clean": Product("gap_clean", "normalized", "plain"),
    "wsam": Product("weighted", "normalized", "plain"),
    "stable_sam": Product("stabilized", "normalized", "plain"),
    "xsam": Product("explicit", "normalized", "plain"),
}
"""The products that the named methods are equal to."""

NAMED: dict[str, Callable[..., optax.GradientTransformationExtraArgs]] = {
    name: getattr(sam_optax, name) for name in SAME if name not in ("gsam_clean", "le_sam", "xsam")
} | {
    "gsam_clean": functools.partial(sam_optax.gsam, minimize="clean"),
    "xsam": functools.partial(sam_optax.xsam, alpha=1.5),
    "le_sam": lambda rho, **options: sam_optax.le_sam(0.35, rho, **options),
}

_SEEN_BY_NAME = {*SAME.values(), Product("reuse", "normalized", "plain")}
_COVERING = [product for product in _covering() if product not in _SEEN_BY_NAME][:3]  # one of each variant
_ALL = [Product(*parts) for parts in itertools.product(COMBINERS, PERTURBATIONS, VARIANTS)]
_REST = [product for product in _ALL if product not in _SEEN_BY_NAME | set(_COVERING)]

SHORT = (
    NAMED
    | {
        "sam_every_2": functools.partial(sam_optax.sam, when=sam_optax.every(2)),
        "look_sam": Product("reuse", "normalized", "plain"),
        "repeated_sam": repeated_sam,
        "repeated_sam_masked": functools.partial(repeated_sam, mask=KERNELS),
    }
    | {_key(product): product for product in _COVERING}
)
LONG = {_key(product): product for product in _REST}

METHODS: dict[str, Callable[..., optax.GradientTransformationExtraArgs]] = SHORT | LONG
"""Every method, as a function of the keywords `rho` and `when`. The shared tests run for all of them."""


WRAPPERS: dict[str, Callable[..., optax.GradientTransformationExtraArgs]] = {
    "msam": sam_optax.msam,
    "msam_masked": functools.partial(sam_optax.msam, mask=KERNELS),
    "msam_scheduled": lambda base, rho, **options: sam_optax.msam(base, rising(rho), **options),
    "wsam_decoupled": functools.partial(sam_optax.wsam_decoupled, learning_rate=0.1),
    "wsam_decoupled_masked": functools.partial(sam_optax.wsam_decoupled, learning_rate=0.1, mask=KERNELS),
    "wsam_decoupled_scheduled": lambda base, rho, learning_rate=0.1: sam_optax.wsam_decoupled(
        base, rising(learning_rate), rising(rho)
    ),
}
"""The methods that wrap their base optimizer, as functions of it and of `rho`."""

COMPLETE: dict[str, Callable[..., optax.GradientTransformationExtraArgs]] = {
    "sam_sps": sam_optax.sam_sps,
    "sam_sps_masked": functools.partial(sam_optax.sam_sps, mask=KERNELS),
    "sam_sps_scheduled": lambda rho: sam_optax.sam_sps(
        rising(rho), optimal_loss=rising(0.01), max_rate=rising(0.5), weight_decay=rising(1e-3)
    ),
    "bsam": lambda rho: sam_optax.bsam(0.1, 1000),
    "bsam_scheduled": lambda rho: sam_optax.bsam(rising(0.1), 1000, damping=rising(0.1), prior_precision=rising(25.0)),
}
"""The optimizers without a base optimizer; see tests/test_complete_optimizers.py. `bsam` gets `rho` later."""

OF_EACH_KIND = ("asam", "vasso", "gsam", "look_sam", "repeated_sam", "msam", "wsam_decoupled")
"""A perturbation with a scale and one with a memory, a combiner without and one with a memory, several ascent steps,
and the wrappers. In `make test`, promises that are slow to compile are tested only with these methods."""


def gradients(name: str) -> int:
    """The number of gradients that a perturbed step of a method takes."""
    return 3 if name.startswith("repeated") else 2


def where(condition: Callable[[str], bool], wrappers: Iterable[str] = ()) -> Any:
    """Parametrize a test by wrappers and by methods that fulfil the condition, those of `LONG` only in `test-long`."""
    rows = [
        name if name in SHORT else pytest.param(name, marks=pytest.mark.long) for name in METHODS if condition(name)
    ]
    return pytest.mark.parametrize("name", [*rows, *wrappers])


every_method = where(lambda name: True)
every_wrapper = where(lambda name: False, WRAPPERS)
every_optimizer = where(lambda name: True, WRAPPERS)
every_short_optimizer = some_of((*SHORT, *WRAPPERS), quick=OF_EACH_KIND)
a_method_of_each_kind = some_of(METHODS, quick=OF_EACH_KIND)
an_optimizer_of_each_kind = some_of((*METHODS, *WRAPPERS), quick=OF_EACH_KIND)


def part(name: str, kind: str) -> str:
    """The `combiner`, `perturbation` or `variant` of a method of the table."""
    product = METHODS[name] if name in METHODS and isinstance(METHODS[name], Product) else SAME.get(name, SAME["sam"])
    return getattr(product, kind)
