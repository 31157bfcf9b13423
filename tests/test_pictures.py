"""The pictures of the documentation: a script draws each of them, and the pages show them."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

import sam_optax
from tests.test_docs import PAGES

ROOT = Path(__file__).parents[1]


def picture_script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/_pictures/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    script: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_the_script_draws_the_diagrams_of_the_guide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = picture_script("draw_diagrams")
    (tmp_path / "pictures").mkdir()
    monkeypatch.setattr(script, "DOCS", tmp_path)
    script.main()
    drawn = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert drawn == {"one_step.png", "batch_plans.png"}
    assert drawn <= set(re.findall(r"\]\(pictures/(\w+\.png)\)", "".join(PAGES.values())))
    updates = [sam_optax.BatchPlan.parse(plan).total_steps(script.EXAMPLES) for plan in script.PLANS.values()]
    assert f"but {updates[0]}, {updates[1]} and {updates[2]} updates" in PAGES["docs/study.md"]


@pytest.mark.long
def test_the_script_draws_every_picture_of_the_gallery(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = picture_script("draw_gallery")
    runs = tmp_path / "results/digits/runs.csv"
    runs.parent.mkdir(parents=True)
    runs.symlink_to(ROOT / "docs/results/digits/runs.csv")
    (tmp_path / "pictures").mkdir()
    monkeypatch.setattr(script, "DOCS", tmp_path)
    monkeypatch.setattr(script, "EPOCHS", 2)
    script.main()
    drawn = {f"pictures/{path.name}" for path in (tmp_path / "pictures").iterdir()}
    assert drawn == set(re.findall(r"\]\((pictures/\w+\.png)\)", PAGES["docs/gallery.md"]))
