"""The program's methods, for tests that ask the same of each of them."""

import pytest

from experiments.training.methods import METHODS

APART = ("sgd", "sam", "gsam", "vasso", "look_sam", "wsam_decoupled", "functional_sam", "msam")
"""Those that go their own way through the program: by their passes, by their state or around their optimizer."""

each_method = pytest.mark.parametrize(
    "method", [method if method in APART else pytest.param(method, marks=pytest.mark.long) for method in METHODS]
)
"""Asks `APART` of `make test`; the others, which differ from one of them in a formula, of `make test-long`."""
