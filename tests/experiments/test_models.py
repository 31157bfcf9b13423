import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import models


def count(model: nnx.Module) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def closed_form_count(channels_in: int, num_classes: int) -> int:
    """Convolutions and BatchNorm pairs of ResNet-8, the projections included, and the linear layer."""
    convolutions = [(9 * channels_in, 16), (9 * 16, 16), (9 * 16, 16)]
    for before, after in ((16, 32), (32, 64)):
        convolutions += [(9 * before, after), (9 * after, after), (before, after)]
    return sum(fan * out + 2 * out for fan, out in convolutions) + 64 * num_classes + num_classes


@pytest.mark.parametrize(("shape", "classes"), [((8, 8, 1), 10), ((32, 32, 3), 100)])
def test_small_resnet_is_resnet_8(shape: tuple[int, int, int], classes: int) -> None:
    model = models.create("small_resnet", classes, shape, nnx.Rngs(0))
    assert count(model) == closed_form_count(shape[-1], classes)


def test_resnet18_is_the_papers() -> None:
    assert count(models.create("resnet18", 100, (32, 32, 3), nnx.Rngs(0))) == 11_220_132


def test_logits_have_a_row_an_image_and_training_moves_the_statistics() -> None:
    model = models.create("small_resnet", 10, (8, 8, 1), nnx.Rngs(0))
    forward = nnx.jit(lambda model, images: model(images))
    assert forward(model, jax.random.normal(jax.random.key(0), (4, 8, 8, 1))).shape == (4, 10)
    assert not np.allclose(model.norm.mean[...], 0)


def test_kernels_start_as_pytorch_has_them() -> None:
    model = models.create("small_resnet", 10, (8, 8, 1), nnx.Rngs(0))
    kernel = np.asarray(model.blocks[2].conv_2.kernel[...])
    bound = (9 * 64) ** -0.5
    assert np.abs(kernel).max() <= bound
    np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.02)
    assert 0 < jnp.abs(model.head.bias[...]).max() <= 64**-0.5


def test_a_seed_gives_one_network() -> None:
    first, again, other = (
        nnx.state(models.create("small_resnet", 10, (8, 8, 1), nnx.Rngs(seed)), nnx.Param)["head"]["kernel"][...]
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ValueError, match="small_resnet"):
        models.create("resnet0", 10, (8, 8, 1), nnx.Rngs(0))
