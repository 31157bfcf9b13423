"""The cost of the worst case, the dtypes it accepts, and what it refuses."""

import jax
import jax.numpy as jnp
import pytest

from sam_optax import sharpness
from sam_optax.sharpness import ascent, balls, losses

W, BATCHES = jnp.array([0.5, -1.0, 2.0]), [jnp.eye(3), 2 * jnp.eye(3)]


def _loss_fn(w, batch):
    return 0.5 * jnp.mean((batch @ w) ** 2)


@pytest.mark.parametrize(("restarts", "evaluations"), [(1, 2 * 8), (3, 2 * (8 + 2 * 8))])
def test_an_iteration_evaluates_loss_and_gradient_once(restarts, evaluations):
    calls = []

    def counted(w, batch):
        jax.debug.callback(lambda: calls.append(None))
        return _loss_fn(w, batch)

    jax.block_until_ready(sharpness.worst_case(counted, W, BATCHES, rho=0.1, steps=7, restarts=restarts))
    jax.effects_barrier()
    assert len(calls) == evaluations


def test_a_function_is_traced_once_whatever_the_radius():
    traces = []

    def counted(w, batch):
        traces.append(None)
        return _loss_fn(w, batch)

    for rho, norm in ((0.1, "linf"), (0.2, "linf"), (0.2, "l2")):
        sharpness.worst_case(counted, W, BATCHES, rho=rho, norm=norm, steps=3)
    assert len(traces) == 1


def test_the_measure_can_be_compiled_as_a_whole():
    def measure(w, rho):
        return sharpness.worst_case(_loss_fn, w, BATCHES, rho=rho, steps=5).sharpness

    assert jax.jit(measure)(W, 0.1) == pytest.approx(float(measure(W, 0.1)), rel=1e-6)


def test_the_parameters_are_unchanged():
    before = W.copy()
    sharpness.worst_case(_loss_fn, W, BATCHES, rho=0.1, steps=3)
    assert (before == W).all()


def test_the_rest_of_the_ball_is_searched_where_the_loss_is_nan():
    def cliff(w, batch):
        return jnp.where(jnp.abs(w[0]) > 0.55, jnp.nan, _loss_fn(w, batch))

    found = sharpness.worst_case(cliff, W, BATCHES, rho=0.2)
    assert 0 < found.sharpness < sharpness.worst_case(_loss_fn, W, BATCHES, rho=0.2).sharpness


def test_the_ascent_returns_at_once_from_points_where_the_loss_is_nan():
    def cliff(w, batch):
        return jnp.where(w[0] > 0.55, jnp.nan, w[0]) + 0 * jnp.sum(batch)

    history = sharpness.worst_case(cliff, W[:1], BATCHES[:1], rho=0.2).history[0, 0]
    assert jnp.isnan(history[1:4]).all()  # steps of 0.4, 0.2 and 0.1
    assert history[4] == pytest.approx(0.5 + 0.75 * 0.05)  # the next check point is later


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_without_a_finite_gradient_the_sharpness_is_nan_and_not_zero(norm):
    def kink(w, batch):
        return _loss_fn(w, batch) + jnp.sqrt(jnp.abs(w[0] - 0.5))  # the derivative at 0.5 is NaN

    assert jnp.isnan(sharpness.worst_case(kink, W, BATCHES, rho=0.2, norm=norm, steps=3).sharpness)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_gradients_outside_the_mask_may_be_nonfinite(norm):
    def loss_fn(params, batch):
        return _loss_fn(params["w"], batch) + jnp.sqrt(params["other"])

    params, mask = {"w": W, "other": jnp.zeros(())}, {"w": True, "other": False}
    found = sharpness.worst_case(loss_fn, params, BATCHES, rho=0.2, norm=norm, mask=mask)
    expected = sharpness.worst_case(_loss_fn, W, BATCHES, rho=0.2, norm=norm)
    assert found.sharpness == pytest.approx(float(expected.sharpness), rel=1e-5)


def test_a_gradient_whose_square_overflows_is_used():
    found = sharpness.worst_case(lambda w, batch: 1e30 * _loss_fn(w, batch), W, BATCHES, rho=0.2, norm="l2")
    small = sharpness.worst_case(_loss_fn, W, BATCHES, rho=0.2, norm="l2")
    assert found.sharpness == pytest.approx(1e30 * float(small.sharpness), rel=1e-4)


def test_a_float64_loss_does_not_widen_a_float32_ascent(x64):
    w, batches = W.astype(jnp.float32), [jnp.asarray(batch, float) for batch in BATCHES]
    assert _loss_fn(w, batches[0]).dtype == jnp.float64
    before = ascent._iterate._cache_size()
    found = sharpness.worst_case(_loss_fn, w, batches, rho=jnp.float64(0.1), steps=4, keep_perturbations=True)
    assert found.perturbations[0].dtype == jnp.float32
    assert ascent._iterate._cache_size() == before + 1


def test_changing_state_is_outside_the_mask():
    def loss_fn(variables, batch):
        return _loss_fn(variables["w"], batch) * variables["state"]

    mask = {"w": True, "state": False}
    values = [
        sharpness.worst_case(loss_fn, {"w": W, "state": jnp.float32(x)}, BATCHES, rho=0.1, mask=mask).sharpness
        for x in (1, 3)
    ]
    assert values[1] == pytest.approx(3 * float(values[0]), rel=1e-5)


def test_the_loss_gets_bfloat16_parameters_as_bfloat16():
    def loss_of_bfloat16(w, batch):
        assert w.dtype == jnp.bfloat16
        return _loss_fn(w.astype(jnp.float32), batch)

    found = sharpness.worst_case(loss_of_bfloat16, W.astype(jnp.bfloat16), BATCHES, rho=0.5, keep_perturbations=True)
    assert found.sharpness.dtype == found.perturbations[0].dtype == jnp.float32
    in_float32 = sharpness.worst_case(_loss_fn, W, BATCHES, rho=0.5).sharpness
    assert found.sharpness == pytest.approx(float(in_float32), rel=0.02)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"rho": -1.0}, "rho is -1.0"),
        ({"rho": float("nan")}, "rho is nan"),
        ({"norm": "l1"}, "norm is 'l1'"),
        ({"adaptive": "yes"}, "adaptive is 'yes'"),
        ({"steps": 0}, "steps is 0"),
        ({"restarts": 1.5}, "restarts is 1.5"),
        ({"mask": "all"}, "mask"),
        ({"mask": False}, "mask chooses no leaf"),
        ({"batches": []}, "batches is empty"),
        ({"batches": jnp.eye(3)}, "batches is one batch"),
        ({"batches": [jnp.float32(1)]}, "leading axes"),
        ({"batches": [(jnp.eye(3), jnp.zeros(2))]}, "leading axes"),
        ({"batches": (jnp.eye(3), jnp.zeros(3))}, "give batches of one kind"),
        ({"params": jnp.array([1, 2, 3])}, "int32"),
        ({"params": {}}, "params has no leaf"),
        ({"loss_fn": [_loss_fn]}, "loss_fn is of type list"),
        ({"loss_fn": lambda w, batch: batch @ w}, "of shape"),
        ({"loss_fn": lambda w, batch: (jnp.sum(w), 1)}, "a tuple"),
    ],
)
def test_invalid_arguments_are_named(wrong, named):
    arguments = {"loss_fn": _loss_fn, "params": W, "batches": BATCHES, "rho": 0.1} | wrong
    with pytest.raises(ValueError, match=named):
        sharpness.worst_case(**arguments)


@pytest.mark.parametrize("options", [{}, {"restarts": 3}, {"restarts": 2, "random_start": True}])
def test_the_ascent_needs_four_copies_of_the_parameters_besides_an_evaluation(monkeypatch, options):
    w, held = jnp.ones(1237), []

    def counted(*arguments):
        held.append(sum(x.shape == w.shape for x in jax.live_arrays()))
        return evaluate(*arguments)

    evaluate = losses.value_and_grad
    monkeypatch.setattr(losses, "value_and_grad", counted)

    def loss_fn(w, batch):
        return jnp.sum(w**2 * batch.mean())

    sharpness.worst_case(loss_fn, w, [jnp.ones(2)] * 2, rho=0.1, steps=9, **options)
    assert max(held) == 1 + 4  # the parameters, and the ascent's point, the one before, the best and its gradient


def test_an_iteration_reuses_the_buffers_of_its_state():
    start = ascent.begin(W, jnp.float32(1), jnp.ones(3), 0.1)
    ball = balls.create("linf", False)
    ascent._depart(ball, (W, 0.1, jax.random.key(0)), start)
    assert start.best.is_deleted()
    assert not W.is_deleted()
