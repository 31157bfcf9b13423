"""The data that a run trains on, as a section of its config."""

from dataclasses import dataclass

from experiments import data
from experiments.config.checks import check_choice, check_count, check_fraction
from experiments.training.exceptions import printable

_LARGEST_SIDE = 4096  # pixels


@dataclass(frozen=True, kw_only=True)
class Problem:
    """The data that a run trains on.

    Attributes:
      dataset: digits (embedded scans of handwritten digits, 8x8 pixels); cifar10, cifar100, fashion_mnist, mnist,
        svhn_cropped, tiny_imagenet or imagenet2012 from TensorFlow Datasets; or images of your own, npz:FILE (a NumPy
        file) or image_folder:FOLDER (train/LABEL/*.png and test/LABEL/*.png, or jpg).
      image_size: The side in pixels that the images of an image_folder are scaled to. By default they are not scaled,
        and must have one size.
      crop_padding: The largest shift in pixels of a training image of your own. 0 by default. The other data sets have
        fixed shifts.
      flip: Whether training images of your own are mirrored at random. False by default. The other data sets have a
        fixed rule.
      examples_in_file: The number of training examples of your own. By default they are counted. It is saved in
        config.json, so that a report does not need the images.
      images_digest: A digest of your own images. By default it is computed. It is saved in config.json, so that runs on
        other images are not taken for runs on these.
      train_examples: The number of training examples to use, the first ones. All by default.
      split: The seed that chooses the test images of the digits. The seed of the run by default.
      label_noise: The fraction of training labels that are replaced by a random other class.
      validation: The fraction of training examples that is held out and replaces the test set.
    """

    dataset: str = "digits"
    image_size: int | None = None
    crop_padding: int | None = None
    flip: bool | None = None
    examples_in_file: int | None = None
    images_digest: str | None = None
    train_examples: int | None = None
    split: int | None = None
    label_noise: float = 0.0
    validation: float = 0.0

    def __post_init__(self) -> None:
        self._check_images()
        check_count("train_examples", self.train_examples)
        if self.split is not None and self.split < 0:
            raise ValueError(f"split is {self.split}: give a seed, an integer of at least 0.")
        if self.split is not None and self.dataset not in data.SPLIT_BY_SEED:
            raise ValueError(f"split is {self.split}, and the test images of {self.dataset} are fixed: omit it.")
        for name in ("label_noise", "validation"):
            check_fraction(name, getattr(self, name))
        if data.is_user_images(self.dataset) and self.examples_in_file is None:
            object.__setattr__(self, "examples_in_file", data.stored_examples(self.dataset))
            if self.images_digest is None:
                object.__setattr__(self, "images_digest", data.images_digest(self.dataset))

    def _check_images(self) -> None:
        is_user_images = data.is_user_images(self.dataset)
        check_choice("dataset", None if is_user_images else self.dataset, (*data.NAMES, *data.FORMS))
        if self.dataset != printable(self.dataset):
            raise ValueError(f"dataset is {self.dataset!r}: give a path without control characters.")
        for name in ("crop_padding", "flip", "examples_in_file", "images_digest"):
            value = getattr(self, name)
            if value is not None and not is_user_images:
                fixed = f"{name} is {value}, and {self.dataset} has its own"
                raise ValueError(f"{fixed}: omit it, or give images of your own ({' or '.join(data.FORMS)}).")
        if self.image_size is not None and not data.is_image_folder(self.dataset):
            sizes = f"image_size is {self.image_size}, and the images of {self.dataset} are not scaled"
            raise ValueError(f"{sizes}: omit it, or give an image_folder.")
        check_count("image_size", self.image_size, _LARGEST_SIDE)
        check_count("examples_in_file", self.examples_in_file)
        if self.crop_padding is not None and self.crop_padding < 0:
            raise ValueError(f"crop_padding is {self.crop_padding}: give a number of pixels of at least 0.")

    @property
    def user_images(self) -> data.UserImageSettings:
        """How images of one's own are read."""
        return data.UserImageSettings(self.image_size, self.crop_padding or 0, bool(self.flip))

    @property
    def stored_examples(self) -> int:
        """The number of training examples that the data set stores, if it has its published size."""
        return self.examples_in_file or data.stored_examples(self.dataset)

    def check_train_examples(self) -> None:
        """Checks that the data set has as many training examples as a new run asks for; earlier runs may have more.

        Raises:
          ValueError: If it has fewer.
        """
        if self.train_examples is not None and self.train_examples > self.stored_examples:
            stored = f"train_examples is {self.train_examples}, and {self.dataset} has {self.stored_examples}"
            raise ValueError(f"{stored} training examples: give at most that number, or omit it for all.")

    def check_unchanged(self) -> None:
        """Checks that data of one's own are those of the config.

        Raises:
          ValueError: If their number or their digest differs, or if they cannot be read.
        """
        if self.examples_in_file is None:
            return
        found = data.stored_examples(self.dataset)
        if found != self.examples_in_file:
            differing = f"examples_in_file is {self.examples_in_file}, and {self.dataset} has {found} training examples"
            raise ValueError(f"{differing}: omit examples_in_file, or restore the images.")
        if self.images_digest not in (None, data.images_digest(self.dataset)):
            raise ValueError(f"the images of {self.dataset} have changed since the run was started: restore them.")

    def num_examples(self, stored: int) -> int:
        """The number of training examples of the run, out of the number that the data set stores."""
        available = stored if self.train_examples is None else min(self.train_examples, stored)
        return available - round(self.validation * available)
