"""The paper's result for a run with the paper's settings, or with those of a scaled-down version of a row."""

import functools
from collections.abc import Mapping
from dataclasses import replace

from experiments.config import Config
from experiments.presets.rows import NAMES, Published, load

_SCHEDULES = ("constant", "cosine")
_Place = tuple[Config, tuple[int, ...]]


def published_of(config: Config) -> Published | None:
    """Returns the paper's result for these settings, whatever the length of the run; None if the paper has none.

    The settings of a scaled-down version of a row, such as `cifar100_resnet8`, have the result of that row.
    """
    is_papers = config.adaptive is None and config.lr_schedule in _SCHEDULES
    return _published().get(_place(config)) if is_papers else None


@functools.cache
def _published() -> Mapping[_Place, Published]:
    """Returns the paper's results by their place."""
    found = {}
    for name in NAMES:
        row = load(name)
        for (method, strategy), result in row.published.items():
            study = replace(row.study, methods=(method,), strategies=(strategy,), seeds=(0,), match=("epochs",))
            found |= {_place(spec.config): result for spec in study.run_specs()}
    return found


def _place(config: Config) -> _Place:
    """Returns the settings apart from the seed and the length of the run, and the batch sizes in order."""
    sizes = tuple(dict.fromkeys(stage.batch_size for stage in config.plan.stages))
    return config.with_settings(seed=0, batch_plan=f"200x{sizes[0]}").effective, sizes
