"""The code of README and docs, run as it stands."""

import re
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import sam_optax

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
MODEL, STEP, PLAIN, WHEN, SHARP, LOGGED = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def run(*blocks: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(block, namespace)  # noqa: S102 - the README's own code
    return namespace


def test_the_ten_lines_are_ten() -> None:
    body = [line for line in STEP.splitlines() if line and not line.startswith(("import", "@"))]
    assert len(body) <= 10


def test_the_ten_lines_train_and_batchnorm_moves_as_in_one_clean_pass() -> None:
    before = run(MODEL)
    nnx.jit(lambda model, images: model(images))(before["model"], before["images"])
    after = run(MODEL, STEP)
    statistics = (nnx.to_pure_dict(nnx.state(each["model"], nnx.BatchStat)) for each in (before, after))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *statistics)
    losses = [
        after["loss"],
        *(after["step"](*(after[n] for n in ("model", "optimizer", "images", "labels"))) for _ in range(9)),
    ]
    assert jnp.isfinite(jnp.stack(losses)).all()
    assert losses[-1] < losses[0]
    assert sam_optax.diagnostics(after["optimizer"].opt_state).perturbation_norm.round(3) == 0.05


def test_the_plain_step_learns_and_prints_a_cosine(capsys: Any) -> None:
    names = run(PLAIN)
    assert -1 <= float(capsys.readouterr().out) <= 1
    _, _, loss = names["step"](names["params"], names["opt_state"], jnp.eye(3), jnp.ones(3))
    assert loss < names["loss"]


def test_the_step_with_a_policy_makes_a_second_pass_when_it_should(capsys: Any) -> None:
    names = run(PLAIN, WHEN)
    assert jnp.isfinite(names["loss"])
    assert jnp.isnan(sam_optax.diagnostics(names["opt_state"]).cosine)  # step 19
    assert names["opt_state"][0].count == 20


def test_the_sharpness_is_printed_with_its_first_order(capsys: Any) -> None:
    found = run(SHARP)["found"]
    assert 0 < found.first_order < found.sharpness
    assert capsys.readouterr().out == f"{found.sharpness:.4f}, of which the gradient explains {found.first_order:.4f}\n"


def test_a_log_of_ones_own_gets_every_record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wandb = mock.Mock()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.chdir(tmp_path)
    run(LOGGED.replace("25x128", "1x256"))
    assert wandb.init.call_args.kwargs["config"]["method"] == "sam"
    log = wandb.init.return_value
    assert [call.args[0]["kind"] for call in log.log.call_args_list] == ["step", "step", "epoch"]
    log.finish.assert_called_once_with()


def test_the_commands_that_the_readme_names_are_there() -> None:
    makefile = (Path(__file__).parents[1] / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make ([\w-]+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


DOCS = Path(__file__).parents[1] / "docs"


def blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("number", range(1, len(blocks("frameworks.md"))))
def test_the_step_of_each_framework_runs(number: int) -> None:
    first, block = blocks("frameworks.md")[0], blocks("frameworks.md")[number]
    needed = "import sam_optax.flax\n" if "sam_optax.flax" in block else ""
    names = run(first + needed, block)
    assert jnp.isfinite(names["loss"])
    assert names["loss"].shape == ()


def test_there_is_a_step_for_every_framework() -> None:
    headings = re.findall(r"^## (.*)$", (DOCS / "frameworks.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert headings == ["Plain JAX", "Flax NNX", "Flax Linen", "Equinox", "Haiku"]
    assert len(blocks("frameworks.md")) == 1 + len(headings)


def test_what_those_who_come_from_elsewhere_read_runs() -> None:
    names = run(*blocks("coming_from.md"))
    assert jnp.isfinite(names["loss"])
    assert sam_optax.diagnostics(names["state"]).perturbation_norm.round(3) == 0.05


def test_the_measures_of_sharpness_run_as_they_are_shown() -> None:
    names = run(*blocks("sharpness.md"))
    assert 0 < names["found"].first_order < names["found"].sharpness
    assert 0.5 < names["curve"].slope[0] < names["curve"].slope[-1] < 2.5
    assert names["largest"] > 0
    assert 0 < names["of_model"].sharpness < 1
    assert names["path"].loss[6] == pytest.approx(
        float(names["loss_fn"](names["other"], (names["images"], names["labels"])))
    )
    centre = float(names["found"].loss)
    assert [float(names[name].loss[2, 2]) for name in ("plane", "along")] == pytest.approx([centre] * 2)
