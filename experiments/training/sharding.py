"""The sharding of a run's arrays: on one device, or on several, each of which processes a part of every batch."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sam_optax import BatchPlan

AXIS = "data"
"""The name of the mesh axis along which batches are split."""

_SMALLEST = 1024  # the smallest number of entries of a leaf that is split


@dataclass(frozen=True)
class Sharding:
    """The devices of a run, and how its arrays are split over them; `Sharding()` is a single device.

    Batches are split along their first axis. Every device has a copy of the training state. With `fsdp`, the parameters
    and the optimizer's state, which includes the method's, are split instead: a leaf of at least 1,024 entries is split
    along its longest axis whose length is a multiple of the number of devices, the first of equally long ones; other
    leaves are copied. The rule depends on the shape alone, so an array with a parameter's shape is split like it.

    Attributes:
      mesh: the devices, along the axis `"data"`, those of a process next to each other; None: one device.
      fsdp: whether the parameters and the optimizer state are split.
    """

    mesh: Mesh | None = None
    fsdp: bool = False

    @property
    def devices(self) -> int:
        """The number of devices, over all processes."""
        return 1 if self.mesh is None else self.mesh.size

    @property
    def part(self) -> tuple[int, int]:
        """`(index, count)`: this process reads part `index` of the `count` equal parts of each batch."""
        if self.mesh is None:
            return 0, 1
        processes = sorted({device.process_index for device in self.mesh.devices.flat})
        return processes.index(jax.process_index()), len(processes)

    @property
    def leads(self) -> bool:
        """Whether this process writes the files on behalf of all processes."""
        return self.part[0] == 0

    def check(self, plan: BatchPlan, micro_batch: int | None = None) -> None:
        """Refuses a plan whose batches, or micro-batches, cannot be split evenly over the devices.

        Raises:
          ValueError: If a batch size is not a multiple of the number of devices.
        """
        for size in (min(stage.batch_size, micro_batch or stage.batch_size) for stage in plan.stages):
            if size % self.devices:
                whose = "micro_batch makes" if size == micro_batch else "the batch plan has"
                remedy = f"give a number of devices that divides it, or batch sizes divisible by {self.devices}."
                raise ValueError(f"{whose} batches of {size}, which {self.devices} devices do not divide: {remedy}")

    def divided(self, size: int) -> int:
        """Returns the smallest multiple of the number of devices that is at least `size`."""
        return -(-size // self.devices) * self.devices

    def batch(self, batch: Any) -> Any:
        """Puts this process's part of a batch of host arrays on its devices; each device gets its own rows."""
        if self.mesh is None:
            return jax.device_put(batch)
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(self._along(AXIS), x), batch)

    def copied(self, tree: Any) -> Any:
        """Copies arrays, which are the same on every process, to each device."""
        return tree if self.mesh is None else jax.tree.map(lambda x: _put(x, self._along()), tree)

    def state(self, state: Any) -> Any:
        """Puts a training state `(params, model_state, opt_state)`, the same on every process, on the devices."""
        return state if self.mesh is None else jax.tree.map(_put, state, self.shardings(state))

    def kept(self, state: Any) -> Any:
        """Within a compiled step: constrains the new state to the sharding of the state before the step."""
        if self.mesh is None:
            return state
        return jax.tree.map(jax.lax.with_sharding_constraint, state, self.shardings(state))

    def shardings(self, state: Any) -> Any:
        """Returns the sharding of each leaf of a training state, a function of its shape; it requires a mesh."""
        params, model_state, opt_state = state
        copied = jax.tree.map(lambda x: self._along(), model_state)
        return type(state)(jax.tree.map(self._sharding, params), copied, jax.tree.map(self._sharding, opt_state))

    def gathered(self, params: Any) -> Any:
        """Within a compiled step: gathers parameters that may be split on each device; their gradients are split."""
        if self.mesh is None or not self.fsdp:
            return params
        # without a constraint the compiler moves small activations, and gathers a convolution's weights twice
        return jax.tree.map(lambda x: _gather(self._along(), self._sharding(x))(x), params)

    def has_own_shards(self, m: int | None, examples: int) -> bool:
        """Returns whether each device's part of a batch of `examples` consists of whole shards of m examples.

        With `m=None`, the part on a device is one shard.
        """
        is_divided = m is None or (m < examples and examples // self.devices % m == 0)
        return self.mesh is not None and is_divided

    def on_each_device(self, fn: Callable[..., Any], batches: tuple[int, ...]) -> Callable[..., Any]:
        """Within a compiled step: returns `fn` as a function that each device applies to its own rows of the batches.

        Args:
          fn: a function of whole arrays and batches. It takes means over the axis `"data"`, so that its result is the
            same on each device.
          batches: the indices of the arguments that are batches.
        """

        def of_all(*args: Any) -> Any:
            specs = tuple(PartitionSpec(AXIS) if i in batches else PartitionSpec() for i in range(len(args)))
            return jax.shard_map(fn, mesh=self.mesh, in_specs=specs, out_specs=PartitionSpec())(*args)

        return of_all

    def whole(self, tree: Any) -> Any:
        """Returns whole arrays on the first device of this process; every process must call it."""
        if self.mesh is None:
            return tree
        copy_of = _copying(self._along())
        return jax.tree.map(lambda x: (x if x.is_fully_replicated else copy_of(x)).addressable_data(0), tree)

    def agreed(self, tree: Any) -> Any:
        """Broadcasts plain numbers from the leading process, bit for bit; every process must call it."""
        if self.part[1] == 1:
            return tree
        leaves, structure = jax.tree.flatten(tree)
        bits = np.asarray(leaves, np.float64).view(np.uint32)  # 64-bit types may be disabled on devices
        received = np.asarray(multihost_utils.broadcast_one_to_all(bits, is_source=self.leads)).view(np.float64)
        return structure.unflatten(type(mine)(theirs) for mine, theirs in zip(leaves, received, strict=True))

    def _along(self, *axes: str | None) -> NamedSharding:
        """Returns the sharding of an array split along the named mesh axes; without names, each device has a copy."""
        if self.mesh is None:
            raise ValueError("mesh is None: one device has no shardings, give a mesh.")
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def _sharding(self, x: Any) -> NamedSharding:
        divided = [axis for axis, length in enumerate(x.shape) if length % self.devices == 0]
        if not self.fsdp or math.prod(x.shape) < _SMALLEST or not divided:
            return self._along()
        longest = max(divided, key=lambda axis: x.shape[axis])
        return self._along(*[None] * longest, AXIS)


def mesh_of(devices: Sequence[Any]) -> Mesh:
    """Returns a mesh of the devices along one axis, whose arrays the compiler shards automatically."""
    return Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))


def _put(x: Any, sharding: NamedSharding) -> jax.Array:
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_put(jax.random.key_data(x), sharding), impl=jax.random.key_impl(x))
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


@functools.cache
def _copying(everywhere: NamedSharding) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(lambda x: x, out_shardings=everywhere)


def _gather(everywhere: NamedSharding, split: NamedSharding) -> Callable[[jax.Array], jax.Array]:
    """Returns a sharding constraint that gathers parameters and, when differentiated, splits their gradients.

    No device therefore needs to hold whole gradients.
    """
    constrain = jax.lax.with_sharding_constraint
    gather = jax.custom_vjp(lambda x: constrain(x, everywhere))
    gather.defvjp(lambda x: (constrain(x, everywhere), None), lambda _, gradient: (constrain(gradient, split),))
    return gather
