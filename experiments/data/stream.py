"""The pipeline that a batch plan drives: a pure function of the seed and the position in examples.

Position `epoch · n + i` is the i-th example in the order of that epoch, and the order depends on the seed and the
epoch alone. So a change of the batch size changes nothing else, and the number of batches read resumes a run.
"""

from collections.abc import Iterator
from functools import reduce
from typing import Any

import numpy as np
import tensorflow as tf

from experiments.data.dataset import Split
from sam_optax import BatchPlan

_READ_AHEAD = 4  # batches

Batch = dict[str, np.ndarray]


def training_batches(split: Split, plan: BatchPlan, seed: int, start: int = 0) -> Iterator[Batch]:
    """The batches of a run, in order, read ahead in the background.

    Args:
      split: the training examples.
      plan: the batch size of each epoch; the last incomplete batch of an epoch is dropped.
      seed: determines the order of every epoch.
      start: the number of batches that were read already.

    Returns:
      An iterator over `image` uint8 `(batch, height, width, channels)`, `label` int32 `(batch,)` and `position`
      int64 `(batch,)`.

    Raises:
      ValueError: If a batch of the plan is larger than the data.
    """
    tf.config.set_visible_devices([], "GPU")  # the accelerator's memory is JAX's
    total = plan.total_steps(len(split))
    images, labels = tf.constant(split.images), tf.constant(split.labels)

    def examples(position: Any, index: Any) -> dict[str, Any]:
        return {"image": tf.gather(images, index), "label": tf.gather(labels, index), "position": position}

    indices = _indices(len(split), plan, seed).skip(start).take(total - start)
    batches = indices.map(examples).prefetch(_READ_AHEAD)
    return batches.with_options(_options()).as_numpy_iterator()


def evaluation_batches(split: Split, batch_size: int) -> Iterator[Batch]:
    """Every example once, in order, in batches of one shape.

    Args:
      split: the examples.
      batch_size: examples a batch.

    Yields:
      `image`, `label` and `weight` float32 `(batch,)`, which is 0 on the copies that fill the last batch.
    """
    for start in range(0, len(split), batch_size):
        index = np.arange(start, start + batch_size)
        inside = np.minimum(index, len(split) - 1)
        weight = (index < len(split)).astype(np.float32)
        yield {"image": split.images[inside], "label": split.labels[inside], "weight": weight}


def _options() -> tf.data.Options:
    """One background thread, since the cores are the training's; no autotuning, whose thread ends seconds late."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = 1
    return options


def _indices(num_examples: int, plan: BatchPlan, seed: int) -> tf.data.Dataset:
    """Batches of `(position, index)`, through all stages of the plan."""
    ends = np.cumsum([stage.epochs for stage in plan.stages])
    stages = [
        tf.data.Dataset.range(end - stage.epochs, end).flat_map(_epoch(num_examples, stage.batch_size, seed))
        for end, stage in zip(ends, plan.stages, strict=True)
    ]
    return reduce(tf.data.Dataset.concatenate, stages)


def _epoch(num_examples: int, batch_size: int, seed: int) -> Any:
    def batches(epoch: tf.Tensor) -> tf.data.Dataset:
        ordered = tf.range(num_examples, dtype=tf.int64)
        shuffled = tf.random.experimental.stateless_shuffle(ordered, seed=tf.stack([tf.cast(seed, tf.int64), epoch]))
        pairs = tf.data.Dataset.from_tensor_slices((epoch * num_examples + ordered, shuffled))
        return pairs.batch(batch_size, drop_remainder=True)

    return batches
