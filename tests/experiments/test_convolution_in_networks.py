"""Networks compute and train with our convolution as with that of `lax`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import lax

from experiments import data
from experiments.benchmark import benchmark_steps
from experiments.models import resnet


@pytest.mark.parametrize(("channels", "zoom", "rate"), [(64, 1, 0.05), (8, 2, 0.2)])
def test_networks_train_the_same_with_both_convolutions(monkeypatch, channels, zoom, rate):
    """The losses of 20 steps on the digits are the same to rounding."""
    digits = data.load("digits", seed=0).train
    assert isinstance(digits, data.Split)
    images, labels = jnp.asarray(digits.images[:64], jnp.float32) / 16, jnp.asarray(digits.labels[:64])
    images = images.repeat(zoom, 1).repeat(zoom, 2)

    def losses():
        stages = resnet.Stages(resnet.BasicBlock, (1,), (channels,))
        network = resnet.ResNet(stages, 10, (8 * zoom, 8 * zoom, 1), nnx.Rngs(0))
        optimizer = nnx.Optimizer(network, optax.sgd(rate), wrt=nnx.Param)

        @nnx.jit
        def step(network, optimizer):
            def mean_loss(network):
                return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(network(images), labels))

            value, grads = nnx.value_and_grad(mean_loss)(network)
            optimizer.update(network, grads)
            return value

        return np.array([step(network, optimizer) for _ in range(20)])

    ours = losses()
    monkeypatch.setattr(resnet, "conv_general_dilated", lax.conv_general_dilated)
    expected = losses()
    assert ours[-1] < 0.95 * ours[0]
    np.testing.assert_allclose(ours, expected, rtol=1e-2)
    assert not np.array_equal(ours, expected)


def test_small_resnet_on_digits_is_unchanged(monkeypatch):
    """Its wide layers have maps of 2x2 pixels, so its gradients are those of `lax` bit for bit."""

    def gradient():
        problem = benchmark_steps.create("small_resnet", 10, (8, 8, 1), 16)
        return benchmark_steps.gradient(problem)(problem.params, problem.model_state, *problem.batch)

    ours = gradient()
    monkeypatch.setattr(resnet, "conv_general_dilated", lax.conv_general_dilated)
    jax.tree.map(np.testing.assert_array_equal, ours, gradient())
