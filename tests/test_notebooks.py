"""The notebooks: each runs from the first cell to the last with small settings, and has the cells of its source."""

import ast
import importlib.util
import operator
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jupytext
import nbclient
import nbformat
import pytest

from experiments import data, presets
from experiments.config import Config
from tests.experiments import made_up

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings of Jupyter's modules

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
SOURCES = {name: (FOLDER / f"{name}.py").read_text(encoding="utf-8") for name in NAMES}
OURS = ("experiments", "sam_optax")
COLAB = "https://colab.research.google.com/github"


def load(path: str) -> Any:
    """A script of the documentation, as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, FOLDER.parent / "docs" / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


execute = load("_notebooks/execute.py")


def source_of(name: str) -> Any:
    return jupytext.read(FOLDER / f"{name}.py")


def notebook_of(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def executed(name: str, settings: Mapping[str, Any], *, before: str = "", after: str = "", until: str = "") -> Any:
    """Executes a notebook with other settings, and with a cell before and after its own cells.

    With `until`, the cells from the one that begins with this text on are omitted.
    """
    notebook = notebook_of(name)
    omitted = [i for i, cell in enumerate(notebook.cells) if until and cell.source.startswith(until)]
    notebook.cells = notebook.cells[: omitted[0] if omitted else None]
    (at,) = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    assert set(settings) <= set(re.findall(r"^(\w+) = ", notebook.cells[at].source, re.MULTILINE))
    ours = "\n".join(f"{name} = {value!r}" for name, value in settings.items())
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(ours))
    notebook.cells = [nbformat.v4.new_code_cell(before), *notebook.cells, nbformat.v4.new_code_cell(after)]
    resources = {"metadata": {"path": str(FOLDER)}}
    return nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()


def outputs(notebook: Any, kind: str) -> list[Any]:
    """The outputs of one kind, of all cells."""
    return [each for cell in notebook.cells for each in cell.get("outputs", []) if each.output_type == kind]


def printed(notebook: Any, stream: str = "stdout") -> str:
    return "".join(each.text for each in outputs(notebook, "stream") if each.name == stream)


def pictures(notebook: Any) -> int:
    shown = outputs(notebook, "display_data") + outputs(notebook, "execute_result")
    return sum("image/png" in each.data for each in shown)


@pytest.fixture(autouse=True)
def _kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A kernel uses the compilation cache of the tests, and writes nothing into the home folder."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(FOLDER.parent / ".cache" / "jax"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))


def test_there_are_four() -> None:
    assert NAMES == ["batch_size_schedules", "flat_minima", "quickstart", "tpu_cifar100"]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_the_cells_of_its_source_and_the_outputs_of_its_code(name: str) -> None:
    source, notebook = source_of(name), notebook_of(name)
    cells = [
        [(cell.cell_type, cell.source, cell.metadata.get("tags")) for cell in each.cells] for each in (source, notebook)
    ]
    assert cells[0] == cells[1], "run make notebooks"
    assert notebook.metadata["executed"] == execute.digest(notebook), "run make notebooks"
    assert pictures(notebook) >= 1
    assert printed(notebook, "stderr") == ""
    assert not outputs(notebook, "error")


@pytest.mark.parametrize("name", NAMES)
def test_the_outputs_of_a_notebook_are_small_and_name_no_folder_and_no_duration(name: str) -> None:
    text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    assert len(text) < 500_000
    shown = [each.data for kind in ("display_data", "execute_result") for each in outputs(notebook_of(name), kind)]
    words = printed(notebook_of(name)) + "".join(each.get("text/markdown", "") for each in shown)
    assert not re.search(r"(?<![\w.])/(?:home|root|tmp|work|usr|content)/", words)
    assert not execute.DURATION.search(words)
    assert not re.search(r"\d{4}-\d\d-\d\dT", text)


def test_an_output_is_stored_without_the_folders_and_the_durations_of_the_machine() -> None:
    stream = nbformat.v4.new_output
    stars = "*" * 32
    warning = f"{stars}\n[Compiling module jit_step for CPU] Very slow compile?\n{stars}\n"
    slow = f"E1130 13:35:40.963854   13217 slow_operation_alarm.cc:73] \n{warning}"
    took = f"E1130 13:36:03.758765   11096 slow_operation_alarm.cc:140] The operation took 11m\n\n{warning}"
    texts = ("the runs are in /here/runs\n", slow, took, "seed 0: 1.3%, in 16.1 s\n")
    (joined,) = execute.joined([stream("stream", text=text) for text in texts])
    assert execute.clean(joined, ["/here/"]).text == "the runs are in runs\nseed 0: 1.3%\n"


def test_a_notebook_with_the_same_code_keeps_its_outputs() -> None:
    code, prose = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell
    before = nbformat.v4.new_notebook(cells=[prose("Old."), code("1", outputs=[nbformat.v4.new_output("stream")])])
    after = nbformat.v4.new_notebook(cells=[prose("New."), prose("More."), code("1")])
    assert execute.digest(before) == execute.digest(after)
    execute.keep_outputs(before, after)
    assert after.cells[2].outputs == before.cells[1].outputs
    after.cells[2].source = "2"
    assert execute.digest(before) != execute.digest(after)


def test_the_page_of_a_notebook_has_its_outputs_and_no_badge() -> None:
    pages = load("_hooks/notebooks.py")
    files = dict(pages.page_of(FOLDER / "quickstart.ipynb"))
    assert sorted(name.rsplit(".")[-1] for name in files) == ["md", *["png"] * 4]
    text = files["quickstart.md"]
    assert COLAB not in text
    assert "](../frameworks.md)" in text
    assert "100 steps, 120 gradients\n```" in text
    assert set(re.findall(r"\]\((quickstart_files/.*?)\)", text)) == set(files) - {"quickstart.md"}
    assert pages.on_page_markdown("[a](../notebooks/quickstart.ipynb)") == "[a](notebooks/quickstart.md)"


@pytest.mark.parametrize("name", NAMES)
def test_a_badge_opens_its_own_notebook_in_the_repository_that_all_of_them_name(name: str) -> None:
    (address,) = set(re.findall(r'^REPOSITORY = "(.*)"$', "\n".join(SOURCES.values()), re.MULTILINE))
    assert re.findall(rf"\]\(({COLAB}.*?)\)", SOURCES[name]) == [
        f"{COLAB}/{address.removeprefix('https://github.com/')}/blob/main/notebooks/{name}.ipynb"
    ]
    assert SOURCES[name].count("REPOSITORY = ") == 1


@pytest.mark.parametrize("name", NAMES)
def test_the_files_that_a_notebook_names_exist(name: str) -> None:
    for path in re.findall(r"`((?:docs|notebooks)/[\w./]+)`", SOURCES[name]):
        assert (FOLDER.parent / path).exists(), path
    for module in re.findall(r"experiments\.(\w+)", SOURCES[name]):
        path = FOLDER.parent / "experiments" / module
        assert path.is_dir() or path.with_suffix(".py").is_file(), module


def dotted(node: ast.AST) -> str:
    """Returns `a.b.c` for an expression of names and attributes, and an empty string for any other."""
    if isinstance(node, ast.Attribute):
        return f"{start}.{node.attr}" if (start := dotted(node.value)) else ""
    return node.id if isinstance(node, ast.Name) else ""


def is_import_of_ours(node: ast.AST) -> bool:
    names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
    names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    return any(name.split(".")[0] in OURS for name in names)


def assert_names_exist(code: str) -> None:
    """The imports of the code from our packages exist, and so do the attributes that it uses."""
    nodes = list(ast.walk(ast.parse(code)))
    bound: dict[str, Any] = {}
    for node in filter(is_import_of_ours, nodes):
        exec(ast.unparse(node), bound)  # noqa: S102 - the code's own import
    used = {path for node in nodes if "." in (path := dotted(node)) and path.split(".")[0] in bound}
    assert used
    for path in used:
        first, _, rest = path.partition(".")
        operator.attrgetter(rest)(bound[first])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "tpu_cifar100"])  # it only runs commands
def test_a_notebook_uses_existing_names(name: str) -> None:
    """Most notebooks run only in `make test-long`; this test finds names that do not exist."""
    assert_names_exist(SOURCES[name])


BEYOND_THE_WHEEL = ("equinox", "experiments", "flax", "haiku", "matfree", "sklearn", "tensorflow")


def test_the_quickstart_runs_with_only_the_wheel() -> None:
    settings = {"EPOCHS": 20, "SEEDS": 2, "RADII": (0.1,)}
    hidden = f"import sys\nsys.modules.update(dict.fromkeys({BEYOND_THE_WHEEL!r}))"
    learned = "assert max(each.max() for each in errors.values()) < 0.3"
    done = executed("quickstart", settings, before=hidden, after=learned)
    output_text = printed(done)
    assert "SAM at radius 0 and SGD compute equal updates: True" in output_text
    assert "norm of the perturbation: minimum 0.20, maximum 0.20" in output_text
    assert "100 steps, 120 gradients" in output_text
    assert (printed(done, "stderr"), pictures(done)) == ("", 4)


@pytest.mark.long
def test_the_batch_size_schedules_run(tmp_path: Path) -> None:
    settings = {
        "EPOCHS": 6,
        "OUTPUT": str(tmp_path / "runs"),
        "SEEDS": (0,),
        "METHODS": ("sam",),
        "STRATEGIES": ("constant", "increasing"),
        "CONSTANT": "2x64",
        "INCREASING": "1x32,1x64",
        "EXAMPLES": 8,
    }
    grows = "assert list(sizes) == sorted(sizes)\nassert sizes[-1] > sizes[0]"
    done = executed("batch_size_schedules", settings, after=grows)
    output_text = printed(done)
    assert "242,120 updates" in output_text
    assert output_text.count("same ratio of rate to batch size: True") == 4
    assert "the same losses: True" in output_text
    assert len(re.findall(r"^sam \w+, seed 0: test error", output_text, flags=re.MULTILINE)) == 2
    tables = [each.data["text/markdown"] for each in outputs(done, "display_data") if "text/markdown" in each.data]
    assert "| sam-increasing-0 | 1x32,1x64 |" in tables[0]
    assert "constant | increasing (+B) |" in tables[1]
    assert "| SAM | ? " in tables[2]
    assert (printed(done, "stderr"), pictures(done)) == ("", 5)


@pytest.mark.long
def test_the_flat_minima_run() -> None:
    settings = {"EPOCHS": 10, "SEEDS": 2, "RADII": (1e-4, 1e-3), "POINTS": 5}
    laws = "assert difference < 1e-3\nassert curves['SAM'].slope[0] < 2\nassert loss_fn(minima['SAM'][0], train) < 0.1"
    done = executed("flat_minima", settings, after=laws)
    found = re.findall(r"^adaptive=.* before ([\d.]+)  after ([\d.]+)$", printed(done), flags=re.MULTILINE)
    plain, adaptive = ([float(value) for value in each] for each in found)
    assert plain[1] > 2 * plain[0]
    assert adaptive[1] == pytest.approx(adaptive[0], rel=0.05)
    assert (printed(done, "stderr"), pictures(done)) == ("", 4)


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with CIFAR-100 as TFDS prepares it, of made-up images in archives of its format."""
    made_up.make(monkeypatch, "cifar100", tmp_path / "archives")
    data.load("cifar100", 0, data.Location(tmp_path / "data", tmp_path / "archives"))
    return tmp_path / "data"


@pytest.mark.long
def test_the_row_of_the_paper_is_stopped_by_its_time_limit_and_continued(tmp_path: Path, prepared: Path) -> None:
    plans = {"constant": "2x16", "increasing": "1x16,1x32"}
    more = ["--model", "small_resnet", "--methods", "gsam", "--strategies", *plans, "--train-examples", made_up.TRAIN]
    more += ["--constant-plan", plans["constant"], "--increasing-plan", plans["increasing"]]
    more += ["--sharpness.examples", 16, "--sharpness.steps", 1, "--sharpness.radius-rms", "None"]
    settings = {
        "EPOCHS": 2,
        "OUTPUT": str(tmp_path / "runs"),
        "DATA": ["--data-dir", str(prepared)],
        "MORE": more,
        "TIMED_IMAGES": 16,
    }
    stopped = executed("tpu_cifar100", settings | {"TIME_LIMIT": "1s", "JOBS": 2}, until="## The table")
    assert "the time limit of 1s has passed" in printed(stopped)
    done = executed("tpu_cifar100", settings)
    output_text = printed(done)
    assert "1 device(s), platform cpu" in output_text
    assert "gsam increasing, seed 0: test error" in output_text
    tables = [each.data["text/markdown"] for each in outputs(done, "display_data") if "text/markdown" in each.data]
    planned, timed, errors = tables
    assert "| gsam-increasing-0 | 1x16,1x32 |" in planned
    assert timed.lstrip().startswith("| method | runs |")
    assert re.search(r"\| GSAM \| [\d.]+ / [\d.]+ \| [\d.]+ / [\d.]+ \|", errors)
    assert (printed(done, "stderr"), pictures(done)) == ("", 1)
    small = {"model": "small_resnet", "train_examples": made_up.TRAIN}
    cells = {(cell.config.method, cell.config.seed, cell.folder.name): cell for cell in row_cells()}
    for strategy, plan in plans.items():
        name = f"gsam-{strategy}-0"
        wanted = cells["gsam", 0, name].config.with_settings(batch_plan=plan, **small)
        assert Config.load(tmp_path / "runs" / name / "config.json") == wanted


def row_cells() -> Any:
    """The cells of the row that the notebook runs."""
    return presets.load("cifar100_resnet18").study.run_specs(50_000)
