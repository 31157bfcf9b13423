"""From prepared data on disk to examples."""

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from experiments.data.dataset import Split
from experiments.data.records import Records

_DAMAGE = (tf.errors.OpError, OSError, LookupError, RuntimeError, ValueError)


def read(builder: tfds.core.DatasetBuilder, split: str) -> Split:
    """All examples of one part, in the order of their files.

    Args:
      builder: of a data set that is prepared.
      split: the part's name in TFDS.

    Returns:
      The images and labels, in arrays that cannot be written.

    Raises:
      ValueError: If the files are damaged.
    """
    in_order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    try:
        examples = builder.as_dataset(split=split, batch_size=-1, read_config=in_order)
    except (tf.errors.OpError, OSError, LookupError) as error:
        raise _damaged(builder) from error
    images, labels = examples["image"].numpy(), examples["label"].numpy().astype(np.int32)
    for array in (images, labels):
        array.flags.writeable = False
    return Split(images, labels)


def opened(builder: tfds.core.DatasetBuilder, split: str) -> Records:
    """The examples of one part, left on disk; of every file one is read, to see whether it is whole.

    Args:
      builder: of a data set that is prepared in a format with random access.
      split: the part's name in TFDS.

    Raises:
      ValueError: If the files are damaged.
    """
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    try:
        source = builder.as_data_source(split, deserialize_method=raw)
        last = np.cumsum(builder.info.splits[split].shard_lengths) - 1
        source.__getitems__(last.tolist())
    except _DAMAGE as error:
        raise _damaged(builder) from error
    return Records.of(source, builder.info.features["label"].num_classes)


def _damaged(builder: tfds.core.DatasetBuilder) -> ValueError:
    return ValueError(
        f"data set {builder.name!r} in {builder.data_dir} is damaged: remove that folder, and it is prepared anew."
    )
