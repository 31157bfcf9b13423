"""The README and the pages of the site: their code runs and prints the stated output, and what they name exists."""

import contextlib
import importlib.util
import io
import re
import sys
import textwrap
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax
from experiments.cli.options import options_of
from experiments.models import registry
from tests.experiments import test_help
from tests.experiments.conftest import TinyNet
from tests.selection import some_of
from tests.test_notebooks import assert_names_exist

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
}


class Block(NamedTuple):
    """The Python blocks of a page, each with the output that the page states, empty if it states none."""

    code: str
    prints: str


def blocks(text: str) -> list[Block]:
    found = re.findall(r"^ *```python\n(.*?)^ *```\n(?:\n```text\n(.*?)^```\n)?", text, flags=re.DOTALL | re.MULTILINE)
    return [Block(textwrap.dedent(code), prints) for code, prints in found]


def shell(text: str) -> str:
    """A page's shell commands."""
    return "".join(re.findall(r"^```sh\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE))


def run(page: str, number: int | None = None) -> dict[str, Any]:
    """The names that the blocks of a page, or the first of them, define in one namespace."""
    namespace: dict[str, Any] = {}
    for block in blocks(PAGES[page])[:number]:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(block.code, namespace)  # noqa: S102 - the page's own code
        assert block.prints in ("", printed.getvalue()), block.code
    return namespace


@pytest.fixture(autouse=True)
def _somewhere_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pages write into a temporary folder, draw without a screen, and log to replaced packages."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setitem(sys.modules, "wandb", mock.Mock())


WITH_A_TEST_OF_THEIR_OWN = {"README.md"} | {
    f"docs/{name}.md"
    for name in ("all_together", "coming_from", "first_loop", "frameworks", "loaders", "runs", "sharpness")
}


SLOW = {f"docs/{name}.md" for name in ("batch_plans", "composing", "when_sam_does_nothing", "why_sam")}
RUN_HERE = sorted({page for page in PAGES if blocks(PAGES[page])} - WITH_A_TEST_OF_THEIR_OWN)


@some_of(RUN_HERE, quick=PAGES.keys() - SLOW, argument="page")
def test_the_code_of_a_page_runs_and_prints_the_stated_output(page: str) -> None:
    run(page)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(PAGES[page])])
def test_the_code_of_a_page_uses_existing_names(page: str) -> None:
    """The slowest pages run only in `make test-long`; this test finds names that do not exist."""
    assert_names_exist("\n".join(block.code for block in blocks(PAGES[page])))


def test_the_ten_lines_of_the_readme_are_ten() -> None:
    (block,) = blocks(PAGES["README.md"])
    assert len([line for line in block.code.splitlines() if line]) == 10


def test_the_ten_lines_of_the_readme_learn() -> None:
    names = run("README.md")
    assert -1 <= sam_optax.diagnostics(names["state"]).cosine <= 1
    _, _, loss = names["step"](names["w"], names["state"], jnp.eye(3), jnp.ones(3))
    assert loss < names["loss"]


def test_the_readme_is_short_and_clones_from_the_address_of_the_package() -> None:
    text = PAGES["README.md"]
    assert len(text.splitlines()) <= 150
    headings = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    assert headings[:3] == ["Results", "Install", "Quick start in ten lines"]
    assert text.index("](docs/pictures/landscapes.png)") < text.index("## Results")
    assert len(re.findall(r"^- ", text.partition("## Features")[2].partition("## ")[0], flags=re.MULTILINE)) <= 8
    address = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
    assert f"git clone {address}\n" in shell(text)
    assert f"url = {{{address}}}" in text


def test_the_readme_has_every_method() -> None:
    table = PAGES["README.md"].partition("## Methods")[2].partition("## ")[0]
    assert {call.partition("(")[0] for call, _, _ in STATES} <= set(re.findall(r"`(\w+)`", table)) | {"ported_asam"}


@pytest.mark.long
def test_the_first_loop_learns_with_and_without_sam() -> None:
    names = run("docs/first_loop.md")
    assert names["error"](names["plain"]) < 0.1
    assert names["error"](names["flat"]) < 0.1
    assert 0 < names["metrics"]["accuracy"] <= 1


def test_the_script_of_all_parts_learns_in_parts_of_equal_size() -> None:
    names = run("docs/all_together.md")
    assert len(names["losses"]) == names["plan"].total_steps(names["TRAIN"])
    assert np.mean(names["losses"][-8:]) < 0.3 < names["losses"][0]
    assert sam_optax.diagnostics(names["optimizer"].opt_state).perturbation_norm.round(3) == 0.05


def test_a_custom_writer_gets_every_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._BUILDERS, "small_resnet", TinyNet)  # 2 s instead of 12 s
    run("docs/runs.md")
    wandb: Any = sys.modules["wandb"]
    assert wandb.init.call_args.kwargs["config"]["method"] == "sam"
    log = wandb.init.return_value
    assert [call.args[0]["kind"] for call in log.log.call_args_list] == ["step", "step", "epoch"]
    log.finish.assert_called_once_with()


def test_every_framework_has_a_step_that_returns_a_loss() -> None:
    text = PAGES["docs/frameworks.md"]
    assert re.findall(r"^## (.*)$", text, flags=re.MULTILINE) == [
        "Plain JAX",
        "Flax NNX",
        "Flax Linen",
        "Equinox",
        "Haiku",
    ]
    names: dict[str, Any] = {}
    for number, block in enumerate(blocks(text)):
        names.pop("loss", None)
        exec(block.code, names)  # noqa: S102 - the page's own code
        assert number == 0 or (names["loss"].shape == () and jnp.isfinite(names["loss"]))
    assert number == 11


def test_the_code_for_users_of_other_packages_runs() -> None:
    names = run("docs/coming_from.md")
    assert jnp.isfinite(names["loss"])
    assert sam_optax.diagnostics(names["state"]).perturbation_norm.round(3) == 0.05


@pytest.mark.long
def test_the_shown_measures_of_sharpness_run() -> None:
    names = run("docs/sharpness.md")
    assert 0 < names["found"].first_order < names["found"].sharpness
    assert 0.5 < names["curve"].slope[0] < names["curve"].slope[-1] < 2.5
    assert names["largest"] > 0
    assert 0 < names["of_model"].sharpness < 1
    other = names["loss_fn"](names["other"], (names["images"], names["labels"]))
    assert names["path"].loss[6] == pytest.approx(float(other))
    centre = float(names["found"].loss)
    assert [float(names[name].loss[2, 2]) for name in ("plane", "along")] == pytest.approx([centre] * 2)


STATES = re.findall(r"^\| `(\w+\(.*?\))` \|.*\| ([\d /+k]+) \| (\d) \|$", PAGES["docs/methods.md"], flags=re.MULTILINE)


@pytest.mark.parametrize(("call", "gradients", "copies"), STATES)
def test_the_table_states_the_defaults_the_cost_and_the_state_of_a_method(
    call: str, gradients: str, copies: str
) -> None:
    base, params = optax.sgd(0.1, momentum=0.9), {"w": jnp.ones(1000)}
    names = {**vars(sam_optax), "base": base, "learning_rate": 0.1, "num_examples": 1000}
    tx = eval(call, names)  # noqa: S307 - the table's own call
    own = optax.tree.size(tx.init(params)) - ("base" in call) * optax.tree.size(base.init(params))
    assert own // 1000 == int(copies)
    if call.startswith("bsam"):  # its passes are counted in tests/test_complete_optimizers.py
        return
    passes: list[int] = []
    state = tx.init(params)
    value_and_grad = sam_optax.value_and_grad(lambda w: passes.append(1) or jnp.sum(w["w"] ** 2))
    for i in range(5):
        _, grads, grad_fn = value_and_grad(params)
        perturb = {"perturb": sam_optax.every(5).at(i)} if call.startswith("look_sam") else {}
        _, state = tx.update(grads, state, params, grad_fn=grad_fn, **perturb)
    assert {"1": 5, "1 + 1/k": 6, "2": 10}[gradients] == len(passes)


def test_the_table_has_every_method() -> None:
    methods = set(re.findall(r"^::: sam_optax\.(\w+)$", PAGES["docs/api/methods.md"], flags=re.MULTILINE))
    assert {call.partition("(")[0] for call, _, _ in STATES} == methods - {
        *("BSAMState", "MSAMState", "bsam_sample", "bsam_value_and_grad"),
        *("create", "msam_eval_params", "names", "xsam_alpha"),
    }


@pytest.mark.parametrize("space", [sam_optax, sam_optax.sharpness])
def test_every_public_name_is_in_the_api_once(space: Any) -> None:
    text = "\n".join(text for page, text in PAGES.items() if page.startswith("docs/api/"))
    shown = Counter(re.findall(rf"^::: {space.__name__}\.(\w+)$", text, flags=re.MULTILINE))
    assert shown == Counter({name for name in space.__all__ if name != "sharpness"} | set(shown) & {"plots"})


def test_the_commands_on_the_pages_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for text in PAGES.values():
        for target in re.findall(r"^make ([\w-]+)", shell(text), flags=re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
        for module in re.findall(r"-m (experiments\.\w+)", shell(text)):
            path = ROOT / module.replace(".", "/")
            assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


def page_of_commands() -> str:
    """The page of commands with the text that the site's hook inserts."""
    spec = importlib.util.spec_from_file_location("commands_hook", ROOT / "docs/_hooks/commands.py")
    assert spec is not None
    assert spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    return hook.on_page_markdown(PAGES["docs/commands.md"])


def test_the_page_of_commands_has_every_option_of_every_command() -> None:
    text = page_of_commands()
    assert "<!--" not in text
    sections = dict(re.findall(r"^## experiments\.([\w.]+)\n(.*?)(?=^## |\Z)", text, flags=re.DOTALL | re.MULTILINE))
    assert sorted(sections) == test_help.NAMES
    for name, section in sections.items():
        command = test_help.command(name)
        assert f"{command.call} {command.example}\n" in section
        terms = re.findall(r"^`([^` ]+).*\n:   ", section, flags=re.MULTILINE)
        assert sorted(terms) == sorted(
            (*option.flags, option.value)[0].partition(" ")[0] for option in options_of(command.arguments)
        )


def test_the_files_and_folders_of_the_map_exist() -> None:
    named = re.findall(r"`((?:experiments/|sam_optax/|tests/)?[\w/]+(?:\.py|/))`", PAGES["CONTRIBUTING.md"])
    assert len(named) > 30
    for name in set(named) - {"NAME.py", "NAME/__main__.py", "__main__.py"}:
        assert any((ROOT / folder / name).exists() for folder in ("", "experiments", "sam_optax")), name


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_the_links_of_a_page_outside_the_site_exist(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)", PAGES[page]):
        assert target.startswith("https://") or (ROOT / target).exists(), target
