"""The lowest versions that pyproject.toml declares, as constraints for pip: `python -m tests.lowest_versions`."""

import re
import tomllib
from pathlib import Path

_EXTRAS = ("curvature", "equinox", "flax", "plots", "core-tests")
_DECLARED = re.compile(r"([A-Za-z][\w.-]*)>=([\w.]+)")


def constraints(project: Path) -> list[str]:
    """`name==version` for each `name>=version` of the dependencies of the library and its tests, without duplicates."""
    declared = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = (declared["optional-dependencies"][extra] for extra in _EXTRAS)
    requirements = (*declared["dependencies"], *(each for extra in extras for each in extra))
    return sorted({_lowest(requirement) for requirement in requirements if not requirement.startswith("sam_optax[")})


def _lowest(requirement: str) -> str:
    declared = _DECLARED.fullmatch(requirement)
    if declared is None:
        raise ValueError(f"pyproject.toml requires {requirement!r}: declare its lowest version, as name>=1.2.")
    return f"{declared[1]}=={declared[2]}"


if __name__ == "__main__":
    print("\n".join(constraints(Path(__file__).parents[1])))
