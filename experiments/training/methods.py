"""The methods and policies, by their names on the command line."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

import sam_optax
from sam_optax import BatchPlan, Policy, msam_eval_params

_REMEDY = "give one of always, every:5, after:100, last:0.3, bernoulli:0.5, ae_sam, with any numbers."

GRADIENT_DECIDES = "ae_sam"
_NUMBERS = {"always": str, GRADIENT_DECIDES: str, "every:": int, "after:": int, "last:": float, "bernoulli:": float}


def parse_policy(text: str, plan: BatchPlan, num_examples: int, seed: int) -> Policy:
    """Returns the policy that `text` names.

    Args:
      text: `always`; `every:K`, at each K-th step; `after:STEP`, from a step on; `last:FRACTION`, in the last fraction
        of the epochs; `bernoulli:P`, with probability P; `ae_sam`, if the squared gradient norm is at least a threshold
        that falls over the run from one standard deviation above its mean to one below.
      plan: the batch plan of the run.
      num_examples: the number of training examples.
      seed: the seed of the random draws of `bernoulli`.

    Returns:
      The policy.

    Raises:
      ValueError: If `text` has another form, or a number is out of range.
    """
    name, colon, text_of_number = text.partition(":")
    try:
        number: Any = _NUMBERS[name + colon](text_of_number)
    except (KeyError, ValueError) as error:
        raise ValueError(_REMEDY) from error
    makers: dict[str, Callable[[], Policy]] = {
        "always": sam_optax.always,
        "every": lambda: sam_optax.every(number),
        "after": lambda: sam_optax.after(number),
        "last": lambda: sam_optax.last(number, plan, num_examples),
        "bernoulli": lambda: sam_optax.bernoulli(number, jax.random.key(seed)),
        GRADIENT_DECIDES: lambda: falling_bar(plan.total_steps(num_examples)),
    }
    return makers[name]()


def falling_bar(total_steps: int) -> Policy:
    """Returns AE-SAM's policy as in its paper; `c` decreases from 1 to −1 over the steps."""
    bar: Any = optax.linear_schedule(1.0, -1.0, total_steps)  # Optax's annotation of schedules differs
    return sam_optax.ae_sam(bar)


class Constants(NamedTuple):
    """The constants of a method, which do not change during a run; each is None if the method does not have it.

    Attributes:
      gamma: the weight of the sharpness in WSAM.
      sigma: the weight of the mean gradient that F-SAM subtracts; the increase of the loss in LE-SAM.
      lam: the weight of the past in F-SAM's mean gradient; the weight of the normalized ascent in Unified SAM.
      theta: the weight of the newest gradient in VaSSO's mean.
      eta: the constant that ASAM adds to the absolute value of each weight.
      ascent_steps: the number of ascent steps before the second pass.
      damping: the damping of bSAM's scale.
    """

    gamma: Any = None
    sigma: Any = None
    lam: Any = None
    theta: Any = None
    eta: Any = None
    ascent_steps: Any = None
    damping: Any = None


MINIMA = {"rho": "rho_min", "alpha": "alpha_min"}
"""Maps a hyperparameter to the setting that lets it follow the learning rate: its value at a learning rate of 0."""

OPTIONS = (*MINIMA.values(), *Constants._fields)
"""The settings that only some methods have: the minima of the hyperparameters that they use, and their constants."""


class Hyperparameters(NamedTuple):
    """The inputs of a method.

    Attributes:
      rho: the radius.
      alpha: the weight of the method.
      learning_rate: the learning rate of the base optimizer.
      when: the policy, if the gradient decides on the second pass.
      constants: the constants of the method.
      weight_decay: the weight decay, for methods without a base optimizer; in bSAM the precision of the prior divided
        by the number of examples.
      num_examples: the number of training examples of bSAM.
    """

    rho: Any
    alpha: Any
    learning_rate: Any
    when: Policy
    constants: Constants = Constants()
    weight_decay: float = 0.0
    num_examples: float = 1.0


Estimator = Callable[[Hyperparameters], optax.GradientTransformation]
Around = Callable[[optax.GradientTransformation, Hyperparameters], optax.GradientTransformation]


class Method(NamedTuple):
    """A method: SAM, one of its variants, or the base optimizer alone.

    Attributes:
      title: the name in its paper's spelling.
      estimator: maps the hyperparameters to the gradient transformation that precedes the base optimizer.
      around: maps the base optimizer and the hyperparameters to the wrapped optimizer, if the method wraps one.
      complete: maps the hyperparameters to the complete optimizer, if the method has no base optimizer.
      uses: which of `rho` and `alpha` the method reads.
      rho: the radius that its paper uses for convolutional networks.
      alpha: the weight that its paper uses there.
      momentum: the default momentum of SGD.
      rate: the learning rate of its paper, for a complete optimizer.
      when: the policy, in the form that `parse` reads.
      makes_second_pass: whether the method makes a second pass at all.
      constants: the constants that the config may set, with the values of its paper.
      functional: whether the second pass is that of Functional SAM.
      bayesian: whether the passes are those of bSAM.
      ignores: the settings of the base optimizer that a complete optimizer does not have.
      evaluated: maps the optimizer's state and the parameters to the parameters to evaluate.
    """

    title: str
    estimator: Estimator = lambda now: optax.identity()
    around: Around | None = None
    complete: Estimator | None = None
    uses: tuple[str, ...] = ("rho",)
    rho: float = 0.05
    alpha: float = 0.02
    momentum: float = 0.0
    rate: float | None = None
    when: str = "always"
    makes_second_pass: bool = True
    constants: Constants = Constants()
    functional: bool = False
    bayesian: bool = False
    ignores: tuple[str, ...] = ()
    evaluated: Callable[[Any, Any], Any] = lambda opt_state, params: params

    @property
    def options(self) -> set[str]:
        """The settings of `OPTIONS` that the method has."""
        constants = {name for name, value in self.constants._asdict().items() if value is not None}
        return constants | {MINIMA[name] for name in self.uses}

    @property
    def unread(self) -> set[str]:
        """Which of `rho` and `alpha` the method does not read. A config has the method's defaults for them, or 0."""
        return set(MINIMA) - set(self.uses)

    @property
    def is_estimator(self) -> bool:
        """Whether the method only estimates the gradient, of any loss, and the base optimizer makes the update."""
        return self.around is None and self.complete is None and not self.functional

    def create(self, base: optax.GradientTransformation, now: Hyperparameters) -> optax.GradientTransformation:
        """Returns the method chained with the base optimizer, which a complete optimizer ignores."""
        if self.complete is not None:
            return self.complete(now)
        return optax.chain(self.estimator(now), base) if self.around is None else self.around(base, now)


def _by_name(name: str, *options: str, **fixed: Any) -> Estimator:
    """Returns the estimator that creates a method of the library.

    Args:
      name: the name of the method.
      *options: the hyperparameters and constants that it gets in addition to the radius.
      **fixed: further arguments.
    """

    def estimator(now: Hyperparameters) -> optax.GradientTransformation:
        numbers = now.constants._asdict() | {"alpha": now.alpha}
        return sam_optax.create(name, rho=now.rho, when=now.when, **{each: numbers[each] for each in options}, **fixed)

    return estimator


def _wsam_decoupled(base: optax.GradientTransformation, now: Hyperparameters) -> optax.GradientTransformation:
    return sam_optax.wsam_decoupled(base, now.learning_rate, now.rho, now.constants.gamma, when=now.when)


def _le_sam(now: Hyperparameters) -> optax.GradientTransformation:
    return sam_optax.le_sam(now.constants.sigma, now.rho, when=now.when)


def _msam(base: optax.GradientTransformation, now: Hyperparameters) -> optax.GradientTransformation:
    return sam_optax.msam(base, now.rho)


def _look_sam(now: Hyperparameters) -> optax.GradientTransformation:
    return sam_optax.sharpness_aware(sam_optax.normalized_ascent(now.rho), sam_optax.reuse(now.alpha), now.when)


def _k_step_sam(now: Hyperparameters) -> optax.GradientTransformation:
    ascent = sam_optax.k_step_ascent(now.rho, now.constants.ascent_steps)
    return sam_optax.sharpness_aware(ascent, sam_optax.perturbed_gradient(), now.when)


def _xsam(now: Hyperparameters) -> optax.GradientTransformation:
    return sam_optax.xsam(now.rho, now.alpha, now.constants.ascent_steps, when=now.when)


def _sam_sps(now: Hyperparameters) -> optax.GradientTransformation:
    return sam_optax.sam_sps(now.rho, now.constants.lam, max_rate=now.learning_rate, weight_decay=now.weight_decay)


def _bsam(now: Hyperparameters) -> optax.GradientTransformation:
    return sam_optax.bsam(
        now.learning_rate,
        now.num_examples,
        damping=now.constants.damping,
        prior_precision=now.weight_decay * now.num_examples,
    )


METHODS: dict[str, Method] = {
    "sgd": Method("SGD", uses=(), rho=0.0, makes_second_pass=False),
    "sam": Method("SAM", _by_name("sam")),
    "gsam": Method("GSAM", _by_name("gsam", "alpha"), uses=("rho", "alpha")),
    "gsam_clean": Method("GSAM, clean form", _by_name("gsam", "alpha", minimize="clean"), uses=("rho", "alpha")),
    "asam": Method("ASAM", _by_name("asam", "eta"), rho=0.5, constants=Constants(eta=0.01)),
    "ported_asam": Method("ASAM, ported", _by_name("ported_asam"), rho=2.0),
    "friendly_sam": Method(
        "F-SAM", _by_name("friendly_sam", "sigma", "lam"), rho=0.1, constants=Constants(sigma=1.0, lam=0.9)
    ),
    "vasso": Method("VaSSO", _by_name("vasso", "theta"), constants=Constants(theta=0.9)),
    "look_sam": Method("LookSAM", _look_sam, uses=("rho", "alpha"), rho=0.1, alpha=0.7, when="every:5"),
    "wsam": Method("WSAM", _by_name("wsam", "gamma"), constants=Constants(gamma=0.9)),
    "wsam_decoupled": Method("WSAM, decoupled", around=_wsam_decoupled, constants=Constants(gamma=0.9)),
    "unified_sam": Method("Unified SAM", _by_name("unified_sam", "lam"), constants=Constants(lam=0.5)),
    "unnormalized_sam": Method("SAM, unnormalised", _by_name("unified_sam", lam=0.0)),
    "stable_sam": Method("StableSAM", _by_name("stable_sam")),
    "le_sam": Method("LE-SAM", _le_sam, rho=0.3, constants=Constants(sigma=0.35)),
    "k_step_sam": Method("k-step SAM", _k_step_sam, constants=Constants(ascent_steps=2)),
    "xsam": Method("XSAM", _xsam, uses=("rho", "alpha"), rho=0.15, alpha=1.0, constants=Constants(ascent_steps=1)),
    "sam_sps": Method(
        "SAM-SPS", complete=_sam_sps, rho=0.1, rate=1.0, constants=Constants(lam=1.0), ignores=("momentum",)
    ),
    "bsam": Method(
        "bSAM",
        complete=_bsam,
        rho=0.01,
        rate=0.5,
        constants=Constants(damping=0.1),
        bayesian=True,
        ignores=("momentum",),
    ),
    "functional_sam": Method("Functional SAM", _by_name("sam"), functional=True),
    "msam": Method("MSAM", around=_msam, rho=0.3, momentum=0.9, makes_second_pass=False, evaluated=msam_eval_params),
}
"""The methods in the order of the tables. The first, `sgd`, is the base optimizer alone, even if that is AdamW."""
