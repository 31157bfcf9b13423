"""The methods of the program, for tests that check every one of them."""

from collections.abc import Iterable
from typing import Any

import pytest

from experiments.training.methods import METHODS

APART = ("sgd", "sam", "gsam", "vasso", "look_sam", "wsam_decoupled", "k_step_sam", "functional_sam", "msam")
APART += ("sam_sps", "bsam")
"""Methods with special code in the program, because of their passes, their state or their wrapped optimizer."""


OF_EACH_KIND = ("gsam", "vasso", "wsam_decoupled", "msam")
"""Methods with two gradients, with their own state, a wrapped optimizer, and one gradient at another point."""


def each_of(names: Iterable[str], quick: Iterable[str] = APART) -> pytest.MarkDecorator:
    """Parametrize a test by `method`; `make test` runs the methods in `quick`, and `make test-long` the others."""
    rows = [name if name in quick else pytest.param(name, marks=pytest.mark.long) for name in names]
    return pytest.mark.parametrize("method", rows)


each_method = each_of(METHODS)
a_method_of_each_kind = each_of(METHODS, quick=OF_EACH_KIND)


def supported_settings(method: str, **settings: Any) -> dict[str, Any]:
    """The settings without those that the method does not use."""
    unused = {*METHODS[method].ignores, *METHODS[method].unread}
    return {name: value for name, value in settings.items() if name not in unused}


def gradients_of(method: str) -> int:
    """The gradient evaluations of a step with a second pass, at the default settings."""
    return 1 + METHODS[method].makes_second_pass * (METHODS[method].constants.ascent_steps or 1)
