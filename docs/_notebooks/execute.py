"""Writes the notebooks from their sources, and executes those whose code has changed: `make notebooks`.

`python docs/_notebooks/execute.py NAME ...` executes the named notebooks in any case. The outputs are stored without
what depends on the machine: paths, durations and time stamps. The metadata of a notebook hold the checksum of the code
that was executed. `tpu_cifar100` is executed as a rehearsal on a CPU, and needs CIFAR-100 as `make data-cifar100`
prepares it: `--data-dir FOLDER`.
"""

import argparse
import base64
import hashlib
import io
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jupytext
import nbclient
import nbformat
from PIL import Image

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
COLOURS = 64  # of a picture; line drawings need no more
SLOW = re.compile(r"^E\d{4} .*slow_operation_alarm.*\n(?:\n?\*{9,}\n.*\n\*{9,}\n)?", re.MULTILINE)  # a warning of XLA
DURATION = re.compile(r",? in \d+(\.\d+)? (s|min|h)\b")
REHEARSAL = {
    "EPOCHS": 5,
    "MORE": [
        *("--model", "small_resnet", "--train-examples", 512),
        *("--constant-plan", "5x128", "--increasing-plan", "1x16,1x32,1x64,1x128,1x256"),
        *("--sharpness.examples", 128, "--sharpness.steps", 5),
    ],
    "TIMED_IMAGES": 128,
}


def main() -> None:
    """Parses the command line, and writes each notebook."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="the notebooks to execute even if their code has not changed")
    parser.add_argument(
        "--keep", action="store_true", help="execute only the named notebooks, and no other changed one"
    )
    parser.add_argument("--data-dir", type=Path, help="the folder of the prepared CIFAR-100")
    arguments = parser.parse_args()
    for source in sorted(NOTEBOOKS.glob("*.py")):
        notebook, target = jupytext.read(source), source.with_suffix(".ipynb")
        before = nbformat.read(target, as_version=4) if target.exists() else None
        is_current = before is not None and before.metadata.get("executed") == digest(notebook)
        if source.stem in arguments.names or not (is_current or arguments.keep):
            print(f"executing {source.stem}")
            execute(notebook, settings_of(source.stem, arguments.data_dir))
            notebook.metadata["executed"] = digest(notebook)
        elif is_current:
            keep_outputs(before, notebook)
            notebook.metadata["executed"] = digest(notebook)
        write(notebook, target)


def digest(notebook: Any) -> str:
    """Returns the SHA-256 checksum of a notebook's code."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\n\n".join(code).encode()).hexdigest()


def settings_of(name: str, data_dir: Path | None) -> dict[str, Any]:
    """Returns the settings for the execution that differ from those in the notebook."""
    if name != "tpu_cifar100":
        return {}
    if data_dir is None:
        raise SystemExit("tpu_cifar100 needs CIFAR-100: prepare it with make data-cifar100, and give --data-dir FOLDER")
    return REHEARSAL | {"DATA": ["--data-dir", str(data_dir.resolve())]}


def keep_outputs(before: Any, notebook: Any) -> None:
    """Copies the outputs of a notebook with the same code."""
    cells = [[cell for cell in each.cells if cell.cell_type == "code"] for each in (before, notebook)]
    for old, new in zip(*cells, strict=True):
        new.outputs, new.execution_count = old.outputs, old.execution_count


def execute(notebook: Any, settings: Mapping[str, Any]) -> None:
    """Executes a notebook, and removes from its outputs what depends on the machine."""
    (at,) = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    with tempfile.TemporaryDirectory() as scratch:
        replaced = dict(settings)
        if "\nOUTPUT = " in f"\n{notebook.cells[at].source}":
            replaced["OUTPUT"] = f"{scratch}/runs"
        own = notebook.cells[at].source
        notebook.cells[at].source += "".join(f"\n{name} = {value!r}" for name, value in replaced.items())
        client = nbclient.NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": str(NOTEBOOKS)}},
        )
        client.execute()
        notebook.cells[at].source = own
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = [clean(output, (f"{scratch}/", f"{ROOT}/")) for output in joined(cell.outputs)]
                if "durations" in cell.metadata.get("tags", []):
                    cell.outputs = []


def joined(outputs: Sequence[Any]) -> list[Any]:
    """Joins outputs to the same stream that follow one another."""
    found: list[Any] = []
    for output in outputs:
        if found and output.output_type == "stream" == found[-1].output_type and output.name == found[-1].name:
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def clean(output: Any, folders: Sequence[str]) -> Any:
    """Removes folders and durations from the texts of an output, and most colours from its picture."""
    if output.output_type == "stream":
        output.text = without_machine(output.text, folders)
    for kind, content in output.get("data", {}).items():
        if kind == "image/png":
            output.data[kind] = smaller(content)
        elif kind.startswith("text/"):
            output.data[kind] = without_machine(content, folders)
    return output


def without_machine(text: str, folders: Sequence[str]) -> str:
    """Removes folders, durations and warnings of a slow machine from a text."""
    for folder in folders:
        text = text.replace(folder, "")
    return DURATION.sub("", SLOW.sub("", text))


def smaller(png: str) -> str:
    """Returns a picture, as base64, with few colours."""
    target = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(target, "PNG", optimize=True)
    return base64.b64encode(target.getvalue()).decode()


def write(notebook: Any, path: Path) -> None:
    """Writes a notebook with identifiers of cells that do not change, and without the versions of the machine."""
    notebook.metadata = {key: notebook.metadata[key] for key in ("executed", "kernelspec") if key in notebook.metadata}
    notebook.metadata["language_info"] = {"name": "python"}  # the language of its cells on the site
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
