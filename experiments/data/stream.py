"""The stream of training batches by tf.data: shuffled, moved, and cut into batches by a batch plan.

The stream is a pure function of the seed and the position, so a run resumes at any step. A crop or a flip belongs here
only where AutoAugment follows it; otherwise the compiled step makes it.
"""

import os
from collections.abc import Callable, Iterator
from functools import partial, reduce
from typing import Any

import numpy as np
import tensorflow as tf

from experiments.data.dataset import Examples
from sam_optax import BatchPlan, Stage

_STREAM = 32  # separates these random draws from the others that use the key


def moved(image: tf.Tensor, key: tf.Tensor, padding: int, *, flip: bool) -> tf.Tensor:
    """The image, mirrored with probability one half, and a crop of its size out of it with a border of zeros.

    Args:
      image: uint8 `(height, width, channels)`.
      key: int64 `(2,)`, of which the result is a pure function: the seed and the position.
      padding: the border's width, in pixels.
      flip: whether it may be mirrored.

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
_AT_ONCE = 4  # batches that several threads work on: more would be memory for nothing, as a batch occupies ten already

Batch = dict[str, np.ndarray]
Transform = Callable[[Any, Any], Any]
"""`transform(image, key)` → an image of the same shape: uint8 `(height, width, channels)`, traced; the key is int64
`(2,)`, the seed and the position, for `tf.random.stateless_*`."""


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
    """The batches of a run, in order, read ahead in the background.

    Args:
      split: the training examples.
      plan: the batch size of each epoch; the last incomplete batch of an epoch is dropped.
      seed: determines the order of every epoch.
      start: the number of batches that were read already.
      passes: how often an epoch goes through the examples, each time in another order. A batch may belong to two
        passes.
      transform: what is done to every image as it is read, such as AutoAugment.
      part: `(index, count)`: which part of each batch this process reads, of how many equal ones.
      is_read: whether images and labels are read; without them a batch says which examples it has, for those who hold
        them already.

    Returns:
      An iterator over `image` uint8 `(batch, height, width, channels)`, `label` int32 `(batch,)` and `position`
      int64 `(batch,)`; where nothing is read, over `index` and `position`, both int64 `(batch,)`.

    Raises:
      ValueError: If a batch of the plan is larger than an epoch, or if `passes` is not positive.
    """
    if passes < 1:
        raise ValueError(f"passes is {passes}: give an integer of at least 1.")
    tf.config.set_visible_devices([], "GPU")  # the accelerator's memory is JAX's
    total = plan.total_steps(passes * len(split))
    batches = _indices(len(split), plan, seed, passes).skip(start).take(total - start).map(partial(_cut, *part))
    workers = 1 if not is_read else split.workers if transform is None else os.cpu_count() or 1
    options = tf.data.Options()
    options.autotune.enabled = False  # its thread ends seconds late
    options.threading.private_threadpool_size = workers
    if is_read:
        at_once = _AT_ONCE if workers > 1 else None
        batches = batches.map(_reading(split, seed, transform), at_once, deterministic=True if at_once else None)
    else:
        batches = batches.map(lambda position, index: {"index": index, "position": position})
    # TensorFlow's stubs declare that the elements are single arrays.
    return batches.prefetch(_READ_AHEAD).with_options(options).as_numpy_iterator()  # pyright: ignore[reportReturnType]


def evaluation_batches(split: Examples, batch_size: int, part: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
    """Every example once, in order, in batches of one shape.

    Args:
      split: the examples.
      batch_size: examples a batch.
      part: `(index, count)`: which part of each batch is read, of how many equal ones.

    Yields:
      `image`, `label` and `weight` float32 `(batch,)`, which is 0 on the copies that fill the last batch.
    """
    number, count = part
    own = batch_size // count
    for start in range(number * own, len(split) + number * own, batch_size):
        index = np.arange(start, start + own)
        images, labels = split.rows(np.minimum(index, len(split) - 1))
        yield {"image": images, "label": labels, "weight": (index < len(split)).astype(np.float32)}


def _cut(index: int, count: int, *batch: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """A part of a batch of positions and indices: each process reads only its own."""
    rows = tf.shape(batch[0])[0] // count
    return tuple(each[index * rows : (index + 1) * rows] for each in batch)


def _reading(split: Examples, seed: int, transform: Transform | None) -> Any:
    """A function from positions and indices to the examples there."""
    read, signature = split.training_reader(), tf.TensorSpec(split.image_shape, tf.uint8)

    def examples(position: Any, index: Any) -> dict[str, Any]:
        keys = tf.stack([tf.fill(tf.shape(position), tf.cast(seed, tf.int64)), position], axis=1)
        images, labels = read(index, keys)
        if transform is not None:
            change = transform  # since the lambda needs a name that is never None
            images = tf.map_fn(lambda each: change(*each), (images, keys), fn_output_signature=signature)
        return {"image": images, "label": labels, "position": position}

    return examples


def _indices(num_examples: int, plan: BatchPlan, seed: int, passes: int) -> tf.data.Dataset:
    """Batches of `(position, index)`, through all stages of the plan."""
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
