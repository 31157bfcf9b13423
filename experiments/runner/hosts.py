"""Selects the devices and joins the processes on which a run trains."""

import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments.training.exceptions import INTERRUPTED, NotFiniteError, UnusableError
from experiments.training.sharding import Sharding, mesh_of

Result = TypeVar("Result")

_LONGEST = 1000  # the largest number of bytes of an error message that is sent to other processes
_LAST_PORT = 65_535


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The devices and processes on which a run trains.

    Attributes:
      devices: The number of devices of this process that train, each on its part of every batch. The default is all
        devices, but only one device on a CPU.
      fsdp: Split the parameters and the states of the method and the optimizer over the devices instead of copying
        them.
      distributed: Train together with other processes, one per host or one per device. The processes are found through
        the launcher: SLURM, Open MPI, Kubernetes or a Cloud TPU.
      coordinator: The host:port of the first process. Give it, instead of distributed, if the other processes cannot be
        found through a launcher.
      processes: The number of processes; required with coordinator.
      process: The index of this process, from 0; required with coordinator.
    """

    devices: int | None = None
    fsdp: bool = False
    distributed: bool = False
    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None

    def __post_init__(self) -> None:
        if self.devices is not None and self.devices < 1:
            raise ValueError(f"devices is {self.devices}: give an integer of at least 1.")
        given = [name for name in ("coordinator", "processes", "process") if getattr(self, name) is not None]
        if given and len(given) < 3:
            raise ValueError(f"{given[0]} is {getattr(self, given[0])}: give all of coordinator, processes, process.")
        if self.coordinator is None:
            return
        if self.distributed:
            raise ValueError("distributed is True, and coordinator is given: omit one of the two.")
        host, _, port = self.coordinator.rpartition(":")
        if not host or not (port.isascii() and port.isdecimal() and 0 < int(port) <= _LAST_PORT):
            remedy = f"give host:port, for example 10.0.0.1:8476, with a port from 1 to {_LAST_PORT}."
            raise ValueError(f"coordinator is {self.coordinator!r}: {remedy}")
        process, processes = self.process or 0, self.processes or 0
        if not 0 <= process < processes:
            raise ValueError(f"process is {process} of {processes} processes: give a number from 0 to {processes - 1}.")


def sharding_on(machine: Machine) -> Sharding:
    """Joins the other processes, if any, and returns the sharding; it must be called before any device is used.

    Raises:
      ValueError: If no other processes are found, if the coordinator's port is in use, or if too few devices are
        available.
    """
    if machine.distributed or machine.coordinator is not None:
        _join(machine)
    available = jax.local_device_count()
    wanted = machine.devices or (1 if jax.default_backend() == "cpu" else available)
    if wanted > available:
        remedy = f"On a CPU, set JAX_NUM_CPU_DEVICES={wanted} in the environment."
        raise ValueError(f"devices is {wanted}, and this process has {available}: give at most {available}. {remedy}")
    if wanted == jax.process_count() == 1:
        return Sharding()
    each = [sorted(jax.local_devices(process), key=lambda device: device.id) for process in range(jax.process_count())]
    return Sharding(mesh_of([device for devices in each for device in devices[:wanted]]), machine.fsdp)


def agree_across_hosts(sharding: Sharding, function: Callable[..., Result], *args: Any) -> Result:
    """Calls `function(*args)` on every process; a ValueError on one process is raised on all, with the same message.

    Raises:
      ValueError: If the function raised it on any process.
    """
    if sharding.part[1] == 1:
        return function(*args)
    result, refusal = None, ""
    try:
        result = function(*args)
    except ValueError as error:
        refusal = str(error)
    if refusals := [message for message in _all_messages(refusal) if message]:
        raise ValueError(refusals[0])
    return cast("Result", result)


@contextmanager
def abort_all_on_error(sharding: Sharding) -> Iterator[None]:
    """Ends this process at once if the block fails, so that the other processes notice the failure and end.

    Otherwise this process would wait for the others when it exits, and they would wait for it in their next step.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if sharding.part[1] == 1 or isinstance(error, NotFiniteError):  # NotFiniteError is raised on all processes
            raise
        if isinstance(error, UnusableError):
            print(f"error: {error}", file=sys.stderr)
            code = error.code
        else:
            traceback.print_exc()
            code = INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _join(machine: Machine) -> None:
    if machine.coordinator is not None:
        if machine.process == 0:
            _check_port(machine.coordinator)
        jax.distributed.initialize(machine.coordinator, machine.processes, machine.process)
        return
    try:
        jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        launcher = "SLURM, Open MPI or Kubernetes, or on a Cloud TPU"
        remedy = f"start the program with {launcher}, or give coordinator, processes and process."
        raise ValueError(f"distributed is True, and no other processes were found ({error}): {remedy}") from error


def _check_port(coordinator: str) -> None:
    """Raises a ValueError if the coordinator's port is in use, because otherwise JAX would crash."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # the coordinator sets this option, too
        try:
            tried.bind(("", int(coordinator.rpartition(":")[2])))
        except OSError as error:
            raise ValueError(f"coordinator is {coordinator!r}, whose port is in use: give another port.") from error


def _all_messages(words: str) -> list[str]:
    """Sends the message of this process to all others; returns the messages in the order of the processes."""
    letters = np.frombuffer(words.encode()[:_LONGEST].ljust(_LONGEST), np.uint8)
    return [bytes(message).decode(errors="ignore").strip() for message in multihost_utils.process_allgather(letters)]
