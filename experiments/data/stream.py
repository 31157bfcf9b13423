"""Streams training batches with tf.data: shuffles and transforms the examples, and batches them by a batch plan.

The stream is a pure function of the seed and the position, so a run can resume at any step. Images are cropped and
flipped here only if AutoAugment follows; otherwise the compiled step crops and flips them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial, reduce
from typing import Any

import numpy as np
from etils import epy

from experiments.data.dataset import Examples
from sam_optax import BatchPlan, Stage

with epy.lazy_imports():  # TensorFlow takes seconds to import, and no help text or refused setting needs it
    import tensorflow as tf

_STREAM = 32  # separates these random draws from the others that use the key


def moved(image: tf.Tensor, key: tf.Tensor, padding: int, *, flip: bool) -> tf.Tensor:
    """Mirrors an image with probability 1/2, pads it with zeros, and crops it to its original size at random.

    Args:
      image: uint8 `(height, width, channels)`.
      key: int64 `(2,)`, the seed and the position. The result is a pure function of the image and the key.
      padding: the width of the border in pixels.
      flip: whether the image may be mirrored.

    Returns:
      An image of the same shape and dtype.
    """
    # TensorFlow's stubs declare the folded key as an int.
    draws = tf.random.stateless_uniform((3,), tf.random.fold_in(key, _STREAM))  # pyright: ignore[reportArgumentType]
    if flip:
        image = tf.cond(draws[0] < 0.5, lambda: image[:, ::-1], lambda: image)
    if not padding:
        return image
    row, column = tf.unstack(tf.cast(draws[1:] * (2 * padding + 1), tf.int32))
    height, width, channels = image.shape
    padded = tf.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    return tf.ensure_shape(padded[row : row + height, column : column + width], (height, width, channels))


_READ_AHEAD = 4  # batches
_AT_ONCE = 4  # batches read in parallel; one batch already keeps ten threads busy, so more would only cost memory

Batch = dict[str, np.ndarray]
Transform = Callable[[Any, Any], Any]
"""`transform(image, key)` → an image of the same shape. It is traced by TensorFlow.

The image is uint8 `(height, width, channels)`. The key, for `tf.random.stateless_*`, is int64 `(2,)`: the seed and the
position.
"""


def training_batches(
    split: Examples,
    plan: BatchPlan,
    seed: int,
    start: int = 0,
    *,
    passes: int = 1,
    transform: Transform | None = None,
    part: tuple[int, int] = (0, 1),
    is_read: bool = True,
) -> Iterator[Batch]:
    """Returns the batches of a run, in order; they are prefetched in the background.

    Args:
      split: the training examples.
      plan: the batch size of each epoch; the last incomplete batch of an epoch is dropped.
      seed: determines the order of every epoch.
      start: the number of batches to skip because they were already read.
      passes: the number of passes over the examples in an epoch, each in a different order. A batch may belong to two
        passes.
      transform: a function that is applied to every image when it is read, such as AutoAugment.
      part: `(index, count)`: each batch has `count` equal parts, and this process reads part `index`.
      is_read: whether images and labels are read. If not, a batch contains the indices of its examples, for a caller
        that already holds the examples.

    Returns:
      An iterator over `image` uint8 `(batch, height, width, channels)`, `label` int32 `(batch,)` and `position`
      int64 `(batch,)`; if `is_read` is false, over `index` and `position`, both int64 `(batch,)`.

    Raises:
      ValueError: If a batch of the plan is larger than an epoch, or if `passes` is not positive.
    """
    if passes < 1:
        raise ValueError(f"passes is {passes}: give an integer of at least 1.")
    tf.config.set_visible_devices([], "GPU")  # the accelerator's memory belongs to JAX
    total = plan.total_steps(passes * len(split))
    batches = _indices(len(split), plan, seed, passes).skip(start).take(total - start).map(partial(_cut, *part))
    workers = 1 if not is_read else split.workers if transform is None else os.cpu_count() or 1
    options = tf.data.Options()
    options.autotune.enabled = False  # its thread would take seconds to stop
    options.threading.private_threadpool_size = workers
    if is_read:
        at_once = _AT_ONCE if workers > 1 else None
        batches = batches.map(_reading(split, seed, transform), at_once, deterministic=True if at_once else None)
    else:
        batches = batches.map(lambda position, index: {"index": index, "position": position})
    # TensorFlow's stubs declare the elements as single arrays.
    return batches.prefetch(_READ_AHEAD).with_options(options).as_numpy_iterator()  # pyright: ignore[reportReturnType]


def evaluation_batches(split: Examples, batch_size: int, part: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
    """Yields every example once, in order, in batches of equal shape.

    Args:
      split: the examples.
      batch_size: the number of examples per batch.
      part: `(index, count)`: each batch has `count` equal parts, and part `index` is read.

    Yields:
      `image`, `label` and `weight`, float32 `(batch,)`. The weight is 0 for the copies of the last example that fill
      the last batch.
    """
    number, count = part
    own = batch_size // count
    for start in range(number * own, len(split) + number * own, batch_size):
        index = np.arange(start, start + own)
        images, labels = split.rows(np.minimum(index, len(split) - 1))
        yield {"image": images, "label": labels, "weight": (index < len(split)).astype(np.float32)}


def _cut(index: int, count: int, *batch: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Returns a part of a batch of positions and indices; each process reads only its own part."""
    rows = tf.shape(batch[0])[0] // count
    return tuple(each[index * rows : (index + 1) * rows] for each in batch)


def _reading(split: Examples, seed: int, transform: Transform | None) -> Any:
    """Returns a function that reads the examples at given positions and indices."""
    read, signature = split.training_reader(), tf.TensorSpec(split.image_shape, tf.uint8)

    def examples(position: Any, index: Any) -> dict[str, Any]:
        keys = tf.stack([tf.fill(tf.shape(position), tf.cast(seed, tf.int64)), position], axis=1)
        images, labels = read(index, keys)
        if transform is not None:
            change = transform  # the type checker needs a variable that is never None in the lambda
            images = tf.map_fn(lambda each: change(*each), (images, keys), fn_output_signature=signature)
        return {"image": images, "label": labels, "position": position}

    return examples


def _indices(num_examples: int, plan: BatchPlan, seed: int, passes: int) -> tf.data.Dataset:
    """Returns batches of `(position, index)` for all stages of the plan."""
    shuffle: Any = tf.random.experimental.stateless_shuffle  # pyright: ignore[reportAttributeAccessIssue] - no stub

    def one_pass(number: tf.Tensor) -> tf.data.Dataset:
        ordered = tf.range(num_examples, dtype=tf.int64)
        shuffled = shuffle(ordered, seed=tf.stack([tf.cast(seed, tf.int64), number]))
        return tf.data.Dataset.from_tensor_slices((number * num_examples + ordered, shuffled))

    def epochs(end: int, stage: Stage) -> tf.data.Dataset:
        def epoch(number: tf.Tensor) -> tf.data.Dataset:
            numbers = tf.data.Dataset.range(number * passes, (number + 1) * passes)
            return numbers.flat_map(one_pass).batch(stage.batch_size, drop_remainder=True)

        return tf.data.Dataset.range(end - stage.epochs, end).flat_map(epoch)

    ends = np.cumsum([stage.epochs for stage in plan.stages])
    return reduce(tf.data.Dataset.concatenate, map(epochs, ends, plan.stages))
