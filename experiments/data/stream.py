"""Streams training batches in the order of a batch plan.

The stream is a pure function of the seed and the position, so a run can resume at any step. NumPy reads examples in
memory. TensorFlow reads photographs from disk, and applies a transform such as AutoAugment. Images are cropped and
flipped here only if AutoAugment follows; otherwise the compiled step crops and flips them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from etils import epy

from experiments.data.dataset import Examples, Split
from sam_optax import BatchPlan
from sam_optax.batch_plan import Batch as BatchRows
from sam_optax.batch_plan import order_of_pass

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
    """Returns the batches of a run, in order.

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
    process, count = part
    rows = plan.batches(passes * len(split), seed, start, process_index=process, process_count=count)
    if passes > 1:
        rows = (BatchRows(_indices(len(split), seed, positions), positions) for _, positions in rows)
    if not is_read:
        return ({"index": index, "position": position} for index, position in rows)
    if transform is None and isinstance(split, Split):
        return (_read(split, each) for each in rows)
    return _read_by_tensorflow(split, rows, seed, transform)


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
    share = batch_size // count
    for start in range(number * share, len(split) + number * share, batch_size):
        index = np.arange(start, start + share)
        images, labels = split.rows(np.minimum(index, len(split) - 1))
        yield {"image": images, "label": labels, "weight": (index < len(split)).astype(np.float32)}


def _indices(num_examples: int, seed: int, positions: np.ndarray) -> np.ndarray:
    """Returns the indices of the examples at positions that may belong to several passes."""
    numbers, ranks = np.divmod(positions, num_examples)
    indices = np.empty_like(positions)
    for number in np.unique(numbers).tolist():
        indices[numbers == number] = order_of_pass(num_examples, seed, number)[ranks[numbers == number]]
    return indices


def _read(split: Split, rows: BatchRows) -> Batch:
    images, labels = split.rows(rows.indices)
    return {"image": images, "label": labels, "position": rows.positions}


def _read_by_tensorflow(
    split: Examples, rows: Iterator[BatchRows], seed: int, transform: Transform | None
) -> Iterator[Batch]:
    """Returns the batches with these rows; several are read in parallel, and some are read ahead."""
    tf.config.set_visible_devices([], "GPU")  # the accelerator's memory belongs to JAX
    workers = split.workers if transform is None else os.cpu_count() or 1
    options = tf.data.Options()
    options.autotune.enabled = False  # its thread would take seconds to stop
    options.threading.private_threadpool_size = workers
    signature = (tf.TensorSpec((None,), tf.int64),) * 2
    # TensorFlow's stubs declare the signature as a single spec, and the elements as single arrays.
    batches = tf.data.Dataset.from_generator(lambda: rows, output_signature=signature)
    at_once = _AT_ONCE if workers > 1 else None
    batches = batches.map(_reading(split, seed, transform), at_once, deterministic=True if at_once else None)
    return batches.prefetch(_READ_AHEAD).with_options(options).as_numpy_iterator()  # pyright: ignore[reportReturnType]


def _reading(split: Examples, seed: int, transform: Transform | None) -> Any:
    """Returns a function that reads the examples with given indices and positions."""
    read, signature = split.training_reader(), tf.TensorSpec(split.image_shape, tf.uint8)

    def examples(index: Any, position: Any) -> dict[str, Any]:
        keys = tf.stack([tf.fill(tf.shape(position), tf.cast(seed, tf.int64)), position], axis=1)
        images, labels = read(index, keys)
        if transform is not None:
            change = transform  # the type checker needs a variable that is never None in the lambda
            images = tf.map_fn(lambda each: change(*each), (images, keys), fn_output_signature=signature)
        return {"image": images, "label": labels, "position": position}

    return examples
