"""The program's methods, for tests that ask the same of each of them."""

from collections.abc import Iterable

import pytest

from experiments.training.methods import METHODS

APART = ("sgd", "sam", "gsam", "vasso", "look_sam", "wsam_decoupled", "k_step_sam", "functional_sam", "msam")
"""Those that go their own way through the program: by their passes, by their state or around their optimizer."""


def each_of(names: Iterable[str]) -> pytest.MarkDecorator:
    """Asks `APART` of `make test`; the others, which differ from one of them in a formula, of `make test-long`."""
    rows = [name if name in APART else pytest.param(name, marks=pytest.mark.long) for name in names]
    return pytest.mark.parametrize("method", rows)


each_method = each_of(METHODS)
