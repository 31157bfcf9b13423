"""All figures of a case."""

import math
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import sam_optax
from experiments import data
from experiments.benchmark import benchmark_steps, memory, method_costs, program_costs
from experiments.benchmark.cases import Case
from experiments.benchmark.memory import peak_memory
from experiments.benchmark.race import Subject, race
from experiments.benchmark.ratios import DEFAULT, GRADIENTS, GSAM, OPAQUE, SAM, SGD, UNMEASURED, Figure, memory_first
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
    yield from memory.figures(case, dataset)
    say(f"{name}: timing {method_costs.STEPS} steps of the methods that save passes, {rounds} rounds")
    yield from _thrifty_figures(case, dataset, rounds)
    say(f"{name}: timing the loop, {rounds} rounds")
    yield _loop_figure(case, dataset, statistics.median(seconds[GSAM]), rounds)
    if case.in_bfloat16:
        say(f"{name}: timing bfloat16, {rounds} rounds")
        yield _precision_figure(case, dataset, rounds)
    if case.plan is not None:
        say(f"{name}: timing a plan of five stages, {program_costs.ROUNDS} rounds")
        yield program_costs.figure(case, dataset)
    if case.worst_case_targets is not None:
        say(f"{case.model}, batch {method_costs.BATCH_SIZE}: the worst case, {method_costs.ROUNDS} rounds")
        yield from method_costs.figures(case, dataset)


def _steps(case: Case, dataset: data.Dataset) -> dict[str, Subject]:
    posed = benchmark_steps.create(case.model, dataset.num_classes, dataset.image_shape, case.batch_size)
    sam, gsam = sam_optax.sam(benchmark_steps.RADIUS), sam_optax.gsam(benchmark_steps.RADIUS)
    entrants: dict[str, Subject] = {
        GRADIENTS: benchmark_steps.two_gradients(posed),
        SAM: benchmark_steps.ours(posed, sam),
        GSAM: benchmark_steps.ours(posed, gsam),
        UNMEASURED: benchmark_steps.ours(posed, sam_optax.without_diagnostics(sam)),
        OPAQUE: benchmark_steps.contrib_opaque(posed),
        DEFAULT: benchmark_steps.contrib_default(posed),
    }
    if benchmark_steps.memory_can_be_first():
        for name, method in ((SAM, sam), (GSAM, gsam)):
            entrants[memory_first(name)] = benchmark_steps.ours(posed, method, options=benchmark_steps.MEMORY_FIRST)
    return entrants


def _step_figures(case: Case, seconds: dict[str, list[float]]) -> list[Figure]:
    targets = dict(zip((SAM, GSAM), case.step_targets, strict=True))
    targets |= {memory_first(name): target for name, target in targets.items() if memory_first(name) in seconds}
    against_gradients = [(name, GRADIENTS, target) for name, target in targets.items()]
    return [_time(case, *compared, seconds) for compared in (*against_gradients, *_AGAINST_CONTRIB)]


def _memory_figures(case: Case, entrants: dict[str, Subject]) -> list[Figure]:
    """No figures where the compiler does not tell."""
    running = {name: entrant for name, entrant in entrants.items() if isinstance(entrant, benchmark_steps.Running)}
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
    seconds = method_costs.race_configs({SGD: Config(method="sgd", **shared), **configs}, dataset, rounds)
    return [
        _time(case, name, SGD, target, seconds) for name, target in zip(_THRIFTY, case.thrifty_targets, strict=True)
    ]


def _precision_figure(case: Case, dataset: data.Dataset, rounds: int) -> Figure:
    shared = {"model": case.model, "batch_plan": f"1x{case.batch_size}", "method": "gsam"}
    configs = {f"GSAM in {precision}": Config(precision=precision, **shared) for precision in ("float32", "bfloat16")}
    in_float32, in_bfloat16 = configs
    return _time(case, in_bfloat16, in_float32, None, method_costs.race_configs(configs, dataset, rounds))


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
        program_costs.subjects(config, dataset, num_examples, Path(folder)) as entrants,
    ):
        seconds = race(entrants, rounds)
    steps_each = config.plan.total_steps(num_examples)
    seconds = {name: [each / steps_each for each in turns] for name, turns in seconds.items()}
    return _time(case, program_costs.LOOP, program_costs.BARE_STEP, case.loop_target, seconds)


def _time(case: Case, subject: str, reference: str, target: float | None, seconds: dict[str, list[float]]) -> Figure:
    amounts = tuple(seconds[subject]), tuple(seconds[reference])
    return Figure(case.model, case.batch_size, "time", subject, reference, target, "s", *amounts)
