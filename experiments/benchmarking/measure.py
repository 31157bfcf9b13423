"""All figures of a case."""

import math
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import sam_optax
from experiments import data
from experiments.benchmarking import held_memory, loop_cost, method_steps, plan_cost, problem, steps, worst_case
from experiments.benchmarking.cases import Case
from experiments.benchmarking.figure import Figure
from experiments.benchmarking.memory import peak_memory
from experiments.benchmarking.names import DEFAULT, GRADIENTS, GSAM, OPAQUE, SAM, SGD, UNMEASURED, memory_first
from experiments.benchmarking.race import Subject, race
from experiments.config import Config

_AGAINST_CONTRIB = ((SAM, DEFAULT, 1.0), (SAM, OPAQUE, 1.0), (UNMEASURED, OPAQUE, 1.0))

_THRIFTY = {"MSAM": ("msam", None), "LookSAM, k 5": ("look_sam", "every:5"), "SAM, every 10th": ("sam", "every:10")}

_TURN = 2.0  # seconds: what a turn of the loop should last
_FEWEST_UPDATES = 10  # in a turn of the loop, where a step is slow: what an epoch ends with is spread over them

Say = Callable[[str], None]


def measure(case: Case, rounds: int, say: Say) -> Iterator[Figure]:
    """Time and peak memory of the steps, then time of the loop.

    Args:
      case: what to measure.
      rounds: of each race.
      say: is told what is being done.

    Yields:
      The figures, in the order of the table, as they come: a case may take most of an hour.
    """
    name = f"{case.model}, batch {case.batch_size}"
    dataset = case.dataset()
    say(f"{name}: compiling the steps")
    entrants = _steps(case, dataset)
    say(f"{name}: timing the steps, {rounds} rounds")
    seconds = race(entrants, rounds)
    yield from _step_figures(case, seconds)
    yield from _memory_figures(case, entrants)
    del entrants
    say(f"{name}: what a step holds beside a gradient")
    yield from held_memory.figures(case, dataset)
    say(f"{name}: timing {method_steps.STEPS} steps of the methods that save passes, {rounds} rounds")
    yield from _thrifty_figures(case, dataset, rounds)
    say(f"{name}: timing the loop, {rounds} rounds")
    yield _loop_figure(case, dataset, statistics.median(seconds[GSAM]), rounds)
    if case.in_bfloat16:
        say(f"{name}: timing bfloat16, {rounds} rounds")
        yield _precision_figure(case, dataset, rounds)
    if case.plan is not None:
        say(f"{name}: timing a plan of five stages, {plan_cost.ROUNDS} rounds")
        yield plan_cost.figure(case, dataset)
    if case.worst_case_targets is not None:
        say(f"{case.model}, batch {worst_case.BATCH_SIZE}: the worst case, {worst_case.ROUNDS} rounds")
        yield from worst_case.figures(case, dataset)


def _steps(case: Case, dataset: data.Dataset) -> dict[str, Subject]:
    posed = problem.create(case.model, dataset.num_classes, dataset.image_shape, case.batch_size)
    sam, gsam = sam_optax.sam(steps.RADIUS), sam_optax.gsam(steps.RADIUS)
    entrants: dict[str, Subject] = {
        GRADIENTS: steps.two_gradients(posed),
        SAM: steps.ours(posed, sam),
        GSAM: steps.ours(posed, gsam),
        UNMEASURED: steps.ours(posed, sam_optax.without_diagnostics(sam)),
        OPAQUE: steps.contrib_opaque(posed),
        DEFAULT: steps.contrib_default(posed),
    }
    if steps.memory_can_be_first():
        for name, method in ((SAM, sam), (GSAM, gsam)):
            entrants[memory_first(name)] = steps.ours(posed, method, options=steps.MEMORY_FIRST)
    return entrants


def _step_figures(case: Case, seconds: dict[str, list[float]]) -> list[Figure]:
    targets = dict(zip((SAM, GSAM), case.step_targets, strict=True))
    targets |= {memory_first(name): target for name, target in targets.items() if memory_first(name) in seconds}
    against_gradients = [(name, GRADIENTS, target) for name, target in targets.items()]
    return [_time(case, *compared, seconds) for compared in (*against_gradients, *_AGAINST_CONTRIB)]


def _memory_figures(case: Case, entrants: dict[str, Subject]) -> list[Figure]:
    """No figures where the compiler does not tell."""
    running = {name: entrant for name, entrant in entrants.items() if isinstance(entrant, steps.Running)}
    peaks = {name: peak_memory(step.compiled) for name, step in running.items()}
    if None in peaks.values():
        return []
    return [
        Figure(case.model, case.batch_size, "peak memory", ours, theirs, target, "B", (peaks[ours],), (peaks[theirs],))
        for ours, theirs, target in _AGAINST_CONTRIB
    ]


def _thrifty_figures(case: Case, dataset: data.Dataset, rounds: int) -> list[Figure]:
    """Methods that make fewer second passes, or none, against plain SGD with momentum; a round is ten steps of each."""
    shared = {"model": case.model, "batch_plan": f"1x{case.batch_size}", "momentum": 0.9}
    configs = {name: Config(method=method, when=when, **shared) for name, (method, when) in _THRIFTY.items()}
    seconds = method_steps.race_configs({SGD: Config(method="sgd", **shared), **configs}, dataset, rounds)
    return [
        _time(case, name, SGD, target, seconds) for name, target in zip(_THRIFTY, case.thrifty_targets, strict=True)
    ]


def _precision_figure(case: Case, dataset: data.Dataset, rounds: int) -> Figure:
    shared = {"model": case.model, "batch_plan": f"1x{case.batch_size}", "method": "gsam"}
    configs = {f"GSAM in {precision}": Config(precision=precision, **shared) for precision in ("float32", "bfloat16")}
    in_float32, in_bfloat16 = configs
    return _time(case, in_bfloat16, in_float32, None, method_steps.race_configs(configs, dataset, rounds))


def _loop_figure(case: Case, dataset: data.Dataset, step_seconds: float, rounds: int) -> Figure:
    """The loop against the bare step, in epochs that are cut short where a whole one would take too long."""
    updates = max(_FEWEST_UPDATES, math.ceil(_TURN / step_seconds))
    of_an_epoch = min(updates, len(dataset.train) // case.batch_size)
    plan = f"{math.ceil(updates / of_an_epoch)}x{case.batch_size}"
    # the data are the case's: the name of a data set that stands in the config is not looked up
    config = Config(model=case.model, method="gsam", batch_plan=plan, lr_schedule="cosine")
    num_examples = of_an_epoch * case.batch_size
    with (
        tempfile.TemporaryDirectory() as folder,
        loop_cost.subjects(config, dataset, num_examples, Path(folder)) as entrants,
    ):
        seconds = race(entrants, rounds)
    steps_each = config.plan.total_steps(num_examples)
    seconds = {name: [each / steps_each for each in turns] for name, turns in seconds.items()}
    return _time(case, loop_cost.LOOP, loop_cost.BARE_STEP, case.loop_target, seconds)


def _time(case: Case, subject: str, reference: str, target: float | None, seconds: dict[str, list[float]]) -> Figure:
    amounts = tuple(seconds[subject]), tuple(seconds[reference])
    return Figure(case.model, case.batch_size, "time", subject, reference, target, "s", *amounts)
