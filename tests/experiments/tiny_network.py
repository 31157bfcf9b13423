"""A network that compiles quickly, and needs only packages that every training machine has."""

import jax
from flax import nnx


class TinyNet(nnx.Module):
    """A BatchNorm and a linear layer on normalised pixels."""

    def __init__(self, num_classes: int, image_shape: tuple[int, int, int], rngs: nnx.Rngs) -> None:
        pixels = image_shape[0] * image_shape[1] * image_shape[2]
        self.norm = nnx.BatchNorm(pixels, rngs=rngs)
        self.head = nnx.Linear(pixels, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.head(self.norm(images.reshape(len(images), -1)))
