"""The embedded digits: the paper's cells, every control of its growing batch, every match, ten seeds.

    python -m experiments.reproduce --config digits

About an hour on two cores, as two parts side by side: --part 1/2 and --part 2/2, and then python -m experiments.report.
What came out stands in docs/results/digits.
"""

from pathlib import Path

from experiments.configs.row import Row
from experiments.study import Grid
from experiments.study.grid import PLANNED
from experiments.study.selection import MATCHES

ROW = Row(
    title="Digits, ResNet-8",
    study=Grid(Path("runs/digits"), seeds=tuple(range(10)), strategies=PLANNED, match=MATCHES),
    published={},
)
