"""Methods created by name."""

import inspect

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax


def updates_of(tx):
    w = jnp.array([1.0, -2.0])
    _, grads, grad_fn = sam_optax.value_and_grad(lambda w: jnp.sum(w**4) / 4)(w)
    return tx.update(grads, tx.init(w), w, grad_fn=grad_fn, magnitude=jnp.abs(grads))[0]


def test_every_method_of_the_package_has_its_name():
    """A method is a public function that returns an optimizer or an estimator of the gradient."""
    public = {name: getattr(sam_optax, name) for name in sam_optax.__all__}
    methods = {
        name
        for name, value in public.items()
        if inspect.isfunction(value)
        and value.__module__.startswith("sam_optax.methods")
        and "GradientTransformation" in str(inspect.signature(value).return_annotation)
    }
    assert set(sam_optax.names()) == methods
    assert len(sam_optax.names()) == len(methods)


@pytest.mark.parametrize("name", sam_optax.names())
def test_a_method_created_by_name_equals_that_of_its_function(name):
    options = {"msam": {"base": optax.sgd(0.1, momentum=0.9)}}
    options["wsam_decoupled"] = options["msam"] | {"learning_rate": 0.1}
    options["bsam"] = {"learning_rate": 0.1, "num_examples": 10}
    found = sam_optax.create(name, **options.get(name, {}))
    expected = getattr(sam_optax, name)(**options.get(name, {}))
    np.testing.assert_array_equal(updates_of(found), updates_of(expected))


def test_options_are_passed_on():
    found = updates_of(sam_optax.create("gsam", rho=0.3, alpha=0.5, minimize="clean"))
    np.testing.assert_array_equal(found, updates_of(sam_optax.gsam(0.3, 0.5, minimize="clean")))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("esam", {}, "^name is 'esam': choose one of sam, gsam, "),
        ("sam", {"alpha": 0.1}, "^alpha is 0.1, and sam has only rho, when, mask: omit it"),
        ("msam", {"rho": 0.1}, "^base is missing: give it, since msam has no default for it"),
        ("sam", {"rho": -1.0}, "^rho is -1.0: give a finite number of at least 0"),
    ],
)
def test_unknown_names_and_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        sam_optax.create(name, **options)
