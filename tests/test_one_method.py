"""Two methods in one optimizer are refused wherever the whole state is seen."""

import jax.numpy as jnp
import optax
import pytest

import sam_optax
from sam_optax.method_states import check_one_method

PARAMS = {"body": jnp.ones(3), "head": jnp.ones(2)}
SGD = optax.sgd(0.1, momentum=0.9)

SEVERAL = {
    "two in a chain": lambda: optax.chain(sam_optax.sam(0.5), sam_optax.sam(0.1), SGD),
    "one in an inner chain": lambda: optax.chain(
        sam_optax.gsam(), optax.chain(optax.clip(1.0), sam_optax.vasso()), SGD
    ),
    "injected": lambda: optax.chain(
        optax.inject_hyperparams(sam_optax.sam)(rho=0.1), sam_optax.wsam_decoupled(SGD, 0.1)
    ),
    "sam and msam": lambda: optax.chain(sam_optax.sam(), sam_optax.msam(SGD)),
    "msam twice": lambda: optax.chain(sam_optax.msam(SGD), sam_optax.msam(SGD)),
}
ONE = {
    "none": lambda: SGD,
    "in a chain": lambda: optax.chain(sam_optax.sam(), SGD),
    "around the base": lambda: sam_optax.wsam_decoupled(SGD, 0.1),
    "msam": lambda: sam_optax.msam(SGD),
    "skipping": lambda: sam_optax.skip_nonfinite(optax.apply_if_finite(optax.chain(sam_optax.sam(), SGD), 3)),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_several_methods_are_refused_with_the_right_way(name):
    message = r"^opt_state holds 2 sharpness-aware methods, expected one: .*optax\.multi_transform\(.*normalized_ascent"
    with pytest.raises(ValueError, match=message):
        check_one_method("opt_state", SEVERAL[name]().init(PARAMS))


@pytest.mark.parametrize("name", ONE)
def test_one_method_or_none_is_right(name):
    check_one_method("opt_state", ONE[name]().init(PARAMS))
