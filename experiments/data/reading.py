"""From prepared data on disk to arrays in memory."""

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from experiments.data.dataset import Split


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
        raise ValueError(
            f"data set {builder.name!r} in {builder.data_dir} is damaged: remove that folder, and it is prepared anew."
        ) from error
    images, labels = examples["image"].numpy(), examples["label"].numpy().astype(np.int32)
    for array in (images, labels):
        array.flags.writeable = False
    return Split(images, labels)
