"""The layout of the experiment program: unique, descriptive file names, and short files."""

from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = {name: sorted((ROOT / name).rglob("*.py")) for name in ("experiments", "sam_optax")}
MOST_LINES = 300
MOST_SHARED_NAMES = 3


def _names(package: str) -> Counter[str]:
    return Counter(path.stem for path in FILES[package] if not path.stem.startswith("__"))


@pytest.mark.parametrize("package", FILES)
def test_file_names_are_unique_within_a_package(package: str) -> None:
    assert [name for name, count in _names(package).items() if count > 1] == []


def test_the_library_and_the_program_share_few_file_names() -> None:
    assert len(_names("experiments").keys() & _names("sam_optax").keys()) <= MOST_SHARED_NAMES


@pytest.mark.parametrize("package", FILES)
def test_no_file_is_long(package: str) -> None:
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES[package]}
    assert {path: length for path, length in lengths.items() if length > MOST_LINES} == {}


def test_the_top_level_of_the_program_holds_commands_and_packages() -> None:
    modules = [path for path in (ROOT / "experiments").glob("*.py") if path.stem != "__init__"]
    assert modules
    for path in modules:
        assert 'if __name__ == "__main__":' in path.read_text(encoding="utf-8"), path
    for folder in {path.parent for path in FILES["experiments"]}:
        assert (folder / "__init__.py").is_file(), folder
