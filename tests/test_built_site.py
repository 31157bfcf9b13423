"""The site: it builds without a warning, needs no network, and has every public method."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from types import FunctionType

import pytest

import sam_optax
from tests.test_docs import PAGES, ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built without a warning, which would be an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)  # noqa: S603
    assert built.returncode == 0, built.stderr
    return folder


def test_the_site_has_every_method_of_every_public_class(site: Path) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (site / "api").glob("*.html"))
    named = {f"sam_optax.{name}": getattr(sam_optax, name) for name in sam_optax.__all__}
    methods = {
        f"{path}.{name}"
        for path, found in named.items()
        if inspect.isclass(found)
        for base in found.__mro__
        if base.__module__.startswith("sam_optax")
        for name, value in vars(base).items()
        if not name.startswith("_") and isinstance(value, FunctionType | classmethod | property) and value.__doc__
    }
    assert "sam_optax.BatchPlan.schedule" in methods
    assert {path for path in methods if f'id="{path}"' not in text} == set()


def test_the_site_needs_no_network(site: Path) -> None:
    pages = [path for path in site.rglob("*") if path.suffix in {".html", ".css"}]
    assert len(pages) > len([page for page in PAGES if page.startswith("docs/")])
    for path in pages:
        text = path.read_text(encoding="utf-8")
        loaded = re.findall(r"""<(?!a )\w+\b[^>]*?\b(?:src|href)=["']?(?:https?:)?//[^"'>]*""", text)
        loaded += re.findall(r"""(?:url\(|@import )["']?(?:https?:)?//[^"')]*""", text)
        assert not loaded, path
        assert 'class="mermaid"' not in text  # its script would be fetched
