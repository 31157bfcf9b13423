"""Where a run's arrays lie: on one device, or on several that each take a part of every batch."""

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
"""The name of the devices' axis, along which batches are split."""

_SMALLEST = 1024  # entries of a leaf that is worth splitting


@dataclass(frozen=True)
class Sharding:
    """On which devices a run's arrays lie, and how; `Sharding()` is one device.

    Batches are split along their first axis. Of the training state every device has a copy, or with `fsdp` a part of
    each leaf of the parameters and of the optimizer's state, the method's within it: a leaf of at least 1,024 entries
    is split along its longest axis that the devices divide, the first of equally long ones; other leaves are copied.
    The rule looks at the shape alone, so what is shaped as a parameter is split as it.

    Attributes:
      mesh: the devices, along the axis `"data"`, those of a process side by side; None: one device.
      fsdp: whether parameters and optimizer state are split.
    """

    mesh: Mesh | None = None
    fsdp: bool = False

    @property
    def devices(self) -> int:
        """How many there are, on all processes."""
        return 1 if self.mesh is None else self.mesh.size

    @property
    def part(self) -> tuple[int, int]:
        """`(index, count)`: which part of each batch this process reads, of how many equal ones."""
        if self.mesh is None:
            return 0, 1
        processes = sorted({device.process_index for device in self.mesh.devices.flat})
        return processes.index(jax.process_index()), len(processes)

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes for all."""
        return self.part[0] == 0

    def check(self, plan: BatchPlan, micro_batch: int | None = None) -> None:
        """Refuse a plan whose batches cannot be split, or micro-batches.

        Raises:
          ValueError: If the devices do not divide a batch size.
        """
        for size in (min(stage.batch_size, micro_batch or stage.batch_size) for stage in plan.stages):
            if size % self.devices:
                whose = "micro_batch makes" if size == micro_batch else "the batch plan has"
                remedy = f"give a number of devices that does, or batch sizes that are multiples of {self.devices}."
                raise ValueError(f"{whose} batches of {size}, which {self.devices} devices do not divide: {remedy}")

    def divided(self, size: int) -> int:
        """The next batch size from `size` on that the devices divide."""
        return -(-size // self.devices) * self.devices

    def batch(self, batch: Any) -> Any:
        """A batch of host arrays, of which this process has its part, put on the devices, each with its own rows."""
        if self.mesh is None:
            return jax.device_put(batch)
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(self._along(AXIS), x), batch)

    def copied(self, tree: Any) -> Any:
        """Arrays, the same ones on every process, with a copy on each device."""
        return tree if self.mesh is None else jax.tree.map(lambda x: _put(x, self._along()), tree)

    def state(self, state: Any) -> Any:
        """A training state, `(params, model_state, opt_state)`, the same on every process, put on the devices."""
        return state if self.mesh is None else jax.tree.map(_put, state, self.shardings(state))

    def kept(self, state: Any) -> Any:
        """Within a compiled step: the state after it, to lie where the state before it lay."""
        if self.mesh is None:
            return state
        return jax.tree.map(jax.lax.with_sharding_constraint, state, self.shardings(state))

    def shardings(self, state: Any) -> Any:
        """How each leaf of a training state lies, a function of its shape; not for one device."""
        params, model_state, opt_state = state
        copied = jax.tree.map(lambda x: self._along(), model_state)
        return type(state)(jax.tree.map(self._sharding, params), copied, jax.tree.map(self._sharding, opt_state))

    def gathered(self, params: Any) -> Any:
        """Within a compiled step: parameters that may be split, whole on each device; gradients by them are split."""
        if self.mesh is None or not self.fsdp:
            return params
        # left to itself the compiler moves activations where they are small, and gathers a convolution's weights twice
        return jax.tree.map(lambda x: _gather(self._along(), self._sharding(x))(x), params)

    def has_own_shards(self, m: int | None, examples: int) -> bool:
        """Whether each device's part of a batch of `examples` consists of shards of m, or with None is one."""
        is_divided = m is None or (m < examples and examples // self.devices % m == 0)
        return self.mesh is not None and is_divided

    def on_each_device(self, fn: Callable[..., Any], batches: tuple[int, ...]) -> Callable[..., Any]:
        """Within a compiled step: `fn` as each device computes it of its own rows of the arguments at `batches`.

        Args:
          fn: of whole arrays and batches; its result is the same on each device, by means over the axis `"data"`.
          batches: which of its arguments are batches.
        """

        def of_all(*args: Any) -> Any:
            specs = tuple(PartitionSpec(AXIS) if i in batches else PartitionSpec() for i in range(len(args)))
            return jax.shard_map(fn, mesh=self.mesh, in_specs=specs, out_specs=PartitionSpec())(*args)

        return of_all

    def whole(self, tree: Any) -> Any:
        """Arrays that lie on the devices, on the first one of this process alone; every process has to ask."""
        if self.mesh is None:
            return tree
        copy_of = _copying(self._along())
        return jax.tree.map(lambda x: (x if x.is_fully_replicated else copy_of(x)).addressable_data(0), tree)

    def agreed(self, tree: Any) -> Any:
        """Plain numbers as the process that leads has them, to the last bit; every process has to ask."""
        if self.part[1] == 1:
            return tree
        leaves, structure = jax.tree.flatten(tree)
        bits = np.asarray(leaves, np.float64).view(np.uint32)  # devices may know no 64 bits
        received = np.asarray(multihost_utils.broadcast_one_to_all(bits, is_source=self.leads)).view(np.float64)
        return structure.unflatten(type(mine)(theirs) for mine, theirs in zip(leaves, received, strict=True))

    def _along(self, *axes: str | None) -> NamedSharding:
        """How an array lies that is split along the named axes; along none, each device has a copy."""
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
    """The devices along one axis, over which the compiler spreads what it is given."""
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
    """A constraint whose transpose is another one, so that no device need hold whole gradients."""
    constrain = jax.lax.with_sharding_constraint
    gather = jax.custom_vjp(lambda x: constrain(x, everywhere))
    gather.defvjp(lambda x: (constrain(x, everywhere), None), lambda _, gradient: (constrain(gradient, split),))
    return gather
