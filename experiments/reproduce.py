"""Reproduce the paper's grid: `python -m experiments.reproduce --output runs/digits`."""

from functools import partial

from rich.console import Console
from rich.progress import Progress

from experiments import grid, run
from experiments.command_line import parse, sensibly
from experiments.grid import Cell, Grid
from experiments.picture import draw
from experiments.table import as_markdown, error_table

_CAPTION = "Test error after the last epoch, mean ± standard deviation over seeds"


def main() -> None:
    """Parse, build, call."""
    study = parse(Grid, "python -m experiments.reproduce")
    console = Console(soft_wrap=True, highlight=False)
    sensibly(run.make_folder, study.output)
    left = sensibly(_to_do, study)
    console.print(f"{len(study.cells)} runs of {study.model} on {study.dataset}, {len(left)} of them to do")
    with Progress(console=console, transient=True) as progress:
        overall = progress.add_task("runs", total=len(left))
        for cell in left:
            _execute(cell, progress)
            progress.advance(overall)
    _report(study, console)


def _to_do(study: Grid) -> list[Cell]:
    for cell in study.cells:
        run.load(cell.config)
    return [cell for cell in study.cells if not grid.is_done(cell)]


def _execute(cell: Cell, progress: Progress) -> None:
    name = f"{cell.method} {cell.strategy}, seed {cell.config.seed}"
    total = cell.config.plan.total_steps(len(run.load(cell.config).train))
    task = progress.add_task(name, total=total)
    result = grid.execute(cell, partial(progress.track, task_id=task))
    progress.remove_task(task)
    progress.console.print(f"{name}: {100 * result['test_error']:.2f}% in {result['seconds']:.1f} s")


def _report(study: Grid, console: Console) -> None:
    """The table, in the terminal and as Markdown, and the picture."""
    cells = study.cells
    title = f"{study.model} on {study.dataset}, mean over the seeds {', '.join(map(str, study.seeds))}"
    picture, page = study.output / "picture.png", study.output / "table.md"
    draw(cells, title, picture)
    page.write_text(
        f"# {title}\n\n{_CAPTION}.\n\n{as_markdown(cells)}\n\n"
        f"![Test error and batch size against epochs and against updates]({picture.name})\n",
        encoding="utf-8",
    )
    console.print(error_table(cells))
    console.print(f"{title}\n{_CAPTION}")
    console.print(f"table: {page}\npicture: {picture}")


if __name__ == "__main__":
    main()
