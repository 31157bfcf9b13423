"""The types in the signatures of the package."""

from collections.abc import Callable
from typing import Any

import chex
import optax

Params = optax.Params
"""Any pytree of real floating arrays, which are optimised."""

Updates = optax.Updates
"""A tree with the structure of the parameters: a gradient, an offset, an update."""

State = Any
"""Any pytree of arrays whose structure does not change from call to call."""

SecondPassFn = Callable[[Any], Any]
"""From parameters to their gradient, on one fixed batch: a `sam_optax.GradFn`, or any other function."""

Schedule = Callable[[Any], chex.Numeric]
"""From the number of `update` calls so far to a scalar, as in Optax."""

ScalarOrSchedule = chex.Numeric | Schedule
"""A number, or a schedule over `update` calls."""

Mask = Any
"""A tree of bools with the leaves of the parameters, or a function from the parameters to one."""
