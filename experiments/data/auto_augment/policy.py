"""AutoAugment's policy for CIFAR-10: 25 pairs of operations (Cubuk et al. 2019, arXiv 1805.09501, appendix).

The pairs and the meaning of a level are those that the study's code uses, https://github.com/iiduka-researches/GSAM_batch_inc,
which has them from https://github.com/DeepVoltaire/AutoAugment. There an enhancement's factor is 1 ± 0.1 · level, and a
translation moves by up to 150/331 of the image's side.
"""

from typing import NamedTuple

import numpy as np


class Choice(NamedTuple):
    """One operation of a pair.

    Attributes:
      operation: its name.
      probability: with which it is done.
      level: how strongly, from 0 to 9.
    """

    operation: str
    probability: float
    level: int


POLICY: tuple[tuple[Choice, Choice], ...] = (
    (Choice("invert", 0.1, 7), Choice("contrast", 0.2, 6)),
    (Choice("rotate", 0.7, 2), Choice("translate_x", 0.3, 9)),
    (Choice("sharpness", 0.8, 1), Choice("sharpness", 0.9, 3)),
    (Choice("shear_y", 0.5, 8), Choice("translate_y", 0.7, 9)),
    (Choice("auto_contrast", 0.5, 8), Choice("equalize", 0.9, 2)),
    (Choice("shear_y", 0.2, 7), Choice("posterize", 0.3, 7)),
    (Choice("color", 0.4, 3), Choice("brightness", 0.6, 7)),
    (Choice("sharpness", 0.3, 9), Choice("brightness", 0.7, 9)),
    (Choice("equalize", 0.6, 5), Choice("equalize", 0.5, 1)),
    (Choice("contrast", 0.6, 7), Choice("sharpness", 0.6, 5)),
    (Choice("color", 0.7, 7), Choice("translate_x", 0.5, 8)),
    (Choice("equalize", 0.3, 7), Choice("auto_contrast", 0.4, 8)),
    (Choice("translate_y", 0.4, 3), Choice("sharpness", 0.2, 6)),
    (Choice("brightness", 0.9, 6), Choice("color", 0.2, 8)),
    (Choice("solarize", 0.5, 2), Choice("invert", 0.0, 3)),
    (Choice("equalize", 0.2, 0), Choice("auto_contrast", 0.6, 0)),
    (Choice("equalize", 0.2, 8), Choice("equalize", 0.6, 4)),
    (Choice("color", 0.9, 9), Choice("equalize", 0.6, 6)),
    (Choice("auto_contrast", 0.8, 4), Choice("solarize", 0.2, 8)),
    (Choice("brightness", 0.1, 3), Choice("color", 0.7, 0)),
    (Choice("solarize", 0.4, 5), Choice("auto_contrast", 0.9, 3)),
    (Choice("translate_y", 0.9, 9), Choice("translate_y", 0.7, 9)),
    (Choice("auto_contrast", 0.9, 2), Choice("solarize", 0.8, 3)),
    (Choice("equalize", 0.8, 8), Choice("invert", 0.1, 3)),
    (Choice("translate_y", 0.7, 9), Choice("auto_contrast", 0.9, 1)),
)

_UNREAD = np.zeros(10)
_ENHANCEMENT = np.linspace(0, 0.9, 10)

MAGNITUDES: dict[str, np.ndarray] = {
    "shear_x": np.linspace(0, 0.3, 10),  # pixels to the side for one down
    "shear_y": np.linspace(0, 0.3, 10),
    "translate_x": np.linspace(0, 150 / 331, 10),  # of the image's side
    "translate_y": np.linspace(0, 150 / 331, 10),
    "rotate": np.linspace(0, 30, 10),  # degrees
    "auto_contrast": _UNREAD,
    "invert": _UNREAD,
    "equalize": _UNREAD,
    "solarize": np.linspace(256, 0, 10),  # the grey level from which on pixels are inverted
    "posterize": np.round(np.linspace(8, 4, 10)),  # bits that are kept
    "contrast": _ENHANCEMENT,  # what the factor differs from 1 by
    "color": _ENHANCEMENT,
    "brightness": _ENHANCEMENT,
    "sharpness": _ENHANCEMENT,
}
"""What a level means, for each operation."""

SIGNED = frozenset({"shear_x", "shear_y", "translate_x", "translate_y", "contrast", "color", "brightness", "sharpness"})
"""The operations whose magnitude is taken with either sign, equally often. A rotation is always anticlockwise."""
