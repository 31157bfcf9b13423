"""Executes the runs of a study in several processes. Each process takes the next run when it has finished one.

On a GPU, the processes share the card, which helps if one run does not fill it. On a CPU, each process gets its part of
the cores, which is faster than one run on all cores if the batches are small.
"""

import multiprocessing
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import TypeVar

from experiments.cli import allocator, compilation_cache
from experiments.training import preemption
from experiments.training.exceptions import Terminated, UnusableError
from experiments.training.preemption import Stop

Task = TypeVar("Task")
Result = TypeVar("Result")

BETWEEN_RUNS = "stopped between two runs: run the same command again to continue."
_POLL = 0.2  # seconds between two checks of whether to stop


@dataclass(frozen=True)
class StopFile:
    """A `Stop` for worker processes: they stop as soon as a file exists, or their parent process has ended.

    Attributes:
      path: the file.
      parent: the process ID of the parent.
    """

    path: Path
    parent: int

    def __call__(self, _: int = 0) -> bool:
        """Returns whether to stop; it does not depend on the number of updates."""
        return self.path.exists() or self.is_orphan

    @property
    def is_orphan(self) -> bool:
        """Whether the parent process has ended."""
        return os.getppid() != self.parent


def in_processes(
    work: Callable[[Task, Stop], Result], tasks: Sequence[Task], jobs: int, stop: Stop
) -> Iterator[tuple[Task, Result]]:
    """Applies `work` to all tasks, in several processes, and yields each task with its result when it is done.

    The tasks are started in order. When `stop(0)` returns True, no task is started any more, and the `Stop` that `work`
    receives returns True.

    Args:
      work: a function at the top level of a module; its arguments and results are pickled.
      tasks: the tasks.
      jobs: the number of processes.
      stop: returns whether to stop.

    Raises:
      Terminated: If `stop(0)` returned True before all tasks were done.
      UnusableError: If a process ended abruptly.
    """
    todo, running = deque(tasks), dict[Future[Result], Task]()
    stopped, ended = False, None
    with tempfile.TemporaryDirectory() as folder, _pool(jobs) as pool:
        stopping = StopFile(Path(folder) / "stop", os.getpid())
        try:
            while todo or running:
                stopped = stopped or stop(0)
                if stopped:
                    stopping.path.touch()
                # A pool starts some tasks ahead of its processes and cannot cancel these, so it gets one per process.
                while todo and len(running) < jobs and not stopped:
                    task = todo.popleft()
                    running[pool.submit(finish_task, work, task, stopping)] = task
                if not running:
                    break
                for future in wait(running, timeout=_POLL, return_when=FIRST_COMPLETED).done:
                    task = running.pop(future)
                    try:
                        yield task, future.result()
                    except Terminated as error:
                        ended = error
        except BrokenProcessPool as error:
            message = "a process of the study was killed, perhaps because memory ran out"
            raise UnusableError(f"{message}: give fewer jobs, and run the same command again.") from error
        finally:
            stopping.path.touch()
    if ended is not None:
        raise ended
    if todo:
        raise Terminated(BETWEEN_RUNS)


def finish_task(work: Callable[[Task, Stop], Result], task: Task, stop: StopFile) -> Result:
    """Applies `work` to a task, and ends the process if its parent has ended; otherwise it would wait forever."""
    try:
        return work(task, stop)
    finally:
        if stop.is_orphan:
            os._exit(1)


@contextmanager
def _pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Yields the processes, which are started anew, since JAX does not work in forked ones.

    They allocate memory of a GPU as they need it; by default each would reserve three quarters of the card.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    context = multiprocessing.get_context("spawn")
    cores: SimpleQueue[set[int]] = context.SimpleQueue()
    for each in _parts_of_cores(jobs):
        cores.put(each)
    with ProcessPoolExecutor(jobs, context, _prepare_process, (cores,)) as pool:
        yield pool


def available_cores() -> list[int]:
    """Returns the cores that this process may use; none if the system does not restrict processes to cores."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _parts_of_cores(jobs: int) -> list[set[int]]:
    """Returns a set of cores for each process; empty sets if there are fewer cores than processes."""
    available = available_cores()
    return [set(available[i::jobs]) if len(available) >= jobs else set() for i in range(jobs)]


def _prepare_process(cores: "SimpleQueue[set[int]]") -> None:
    """Prepares a process before its first task. Signals are ignored, since `StopFile` stops its runs."""
    preemption.ignore()
    if mine := cores.get():
        os.sched_setaffinity(0, mine)
    compilation_cache.switch_on()
    allocator.keep_freed_memory()
