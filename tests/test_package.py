"""The package: what it imports and exports, and its documentation."""

import importlib.metadata
import importlib.resources
import inspect
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

import sam_optax
from tests import lowest_versions

ROOT = Path(__file__).parents[1]
SPACES = (sam_optax, sam_optax.sharpness)
NAMED = {f"{space.__name__}.{name}": getattr(space, name) for space in SPACES for name in space.__all__}
RECORDS = [name for name, x in NAMED.items() if hasattr(x, "_fields")]
"""NamedTuples whose fields are documented, while the functions that return them have the examples."""
FUNCTIONS = [name for name, x in NAMED.items() if inspect.isfunction(x)]


def test_the_core_imports_neither_equinox_nor_flax_nor_tensorflow():
    program = "import sys, sam_optax; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()  # noqa: S603
    assert "sam_optax" in loaded
    extras = {"equinox", "flax", "matfree", "matplotlib"}
    assert (extras | {"tensorflow", "tensorflow_datasets", "experiments"}).isdisjoint(loaded)


@pytest.mark.parametrize("space", SPACES)
def test_exported_names_are_sorted_and_exist_once(space):
    assert sorted(set(space.__all__)) == space.__all__
    assert all(hasattr(space, name) for name in space.__all__)


@pytest.mark.parametrize("space", SPACES)
def test_every_public_name_is_exported(space):
    public = {name for name, x in vars(space).items() if not name.startswith("_") and not inspect.ismodule(x)}
    assert public == {name for name in space.__all__ if not inspect.ismodule(getattr(space, name))}


def test_no_module_has_the_name_of_a_public_function_or_of_another_module():
    modules = [path.stem for path in (ROOT / "sam_optax").rglob("*.py") if path.stem != "__init__"]
    assert len(set(modules)) == len(modules)
    assert set(modules).isdisjoint(name.rpartition(".")[2] for name in FUNCTIONS)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_function_is_documented_with_an_example(name):
    documentation = inspect.getdoc(NAMED[name])
    assert "Example:" in documentation
    assert ">>>" in documentation


@pytest.mark.parametrize("name", RECORDS)
def test_every_record_describes_its_fields(name):
    documentation = inspect.getdoc(NAMED[name])
    for field in NAMED[name]._fields:
        assert f"\n  {field}: " in documentation


def test_the_types_are_shipped():
    assert importlib.resources.files("sam_optax").joinpath("py.typed").is_file()


def test_the_version_is_that_of_the_distribution():
    assert importlib.metadata.version("sam_optax") == sam_optax.__version__


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and with the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    return folder


def _run(*command: object, **options: object) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)  # noqa: S603
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_contains_only_the_package_and_its_types(dist):
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    information = f"sam_optax-{sam_optax.__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"sam_optax", information}
    assert {"sam_optax/py.typed", f"{information}/licenses/LICENSE"} <= set(names)
    assert not [name for name in names if name.startswith("sam_optax/") and not name.endswith((".py", "py.typed"))]
    assert {name for name in names if name.endswith(".py")} == {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "sam_optax").rglob("*.py")
    }


def test_the_sdist_contains_the_build_and_citation_files(dist):
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        tops = {name.split("/")[1] for name in archive.getnames()}
    documents = {"README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "PKG-INFO"}
    assert tops == {"sam_optax", "pyproject.toml", ".gitignore"} | documents


def test_the_wheel_installs_into_a_clean_environment_and_runs_the_first_example(dist, tmp_path):
    """The environment uses the installed dependencies, and the package from the wheel."""
    venv.create(tmp_path / "clean", with_pip=False)
    python = tmp_path / "clean" / ("Scripts" if os.name == "nt" else "bin") / "python"
    (wheel,) = dist.glob("*.whl")
    _run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    page = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    code, printed = page.partition("```python\n")[2].partition("```\n\n```text\n")[::2]
    program = f"{code}\nprint(sam_optax.__file__)"
    required = os.environ | {"PYTHONPATH": sysconfig.get_path("purelib")}
    out = _run(python, "-W", "error", "-c", program, cwd=tmp_path, env=required).splitlines()
    assert out[:-1] == printed.partition("```")[0].splitlines()
    assert Path(out[-1]).is_relative_to(tmp_path / "clean")


def test_the_version_is_written_in_one_place():
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "CITATION.cff", "mkdocs.yml")]
    assert not [line for text in texts for line in text.splitlines() if re.match(r"version\b", line)]


@pytest.mark.parametrize(("tag", "fits"), [(f"v{sam_optax.__version__}", True), ("v9.9.9", False), ("v0", False)])
def test_only_a_tag_with_the_version_makes_a_release(tag, fits):
    workflow = yaml.load((ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8"), yaml.BaseLoader)  # noqa: S506
    assert workflow["on"] == {"push": {"tags": ["v*"]}}
    (check,) = (step for step in workflow["jobs"]["build"]["steps"] if step.get("name") == "The tag names the version")
    environment = os.environ | {"GITHUB_REF_NAME": tag}
    done = subprocess.run(["bash", "-c", check["run"]], cwd=ROOT, env=environment, capture_output=True, check=False)  # noqa: S603, S607
    assert (done.returncode == 0) == fits


def test_every_declared_lowest_version_is_installed_by_test_long():
    declared = lowest_versions.constraints(ROOT)
    assert {"chex==0.1.90", "jax==0.10", "optax==0.2.8"} <= set(declared)
    names = [each.partition("==")[0] for each in declared]
    assert sorted(set(names)) == sorted(names)


def test_every_extra_that_the_makefile_installs_is_declared_and_pinned():
    asked = {
        name for names in re.findall(r"'\.\[(.*?)\]'", (ROOT / "Makefile").read_text()) for name in names.split(",")
    }
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "benchmark-peers" in asked
    assert asked <= set(declared)
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    required = {
        re.split(r"[\[>=;]", each)[0].strip().lower().replace("_", "-") for name in asked for each in declared[name]
    }
    assert required - {"sam-optax"} <= pinned
