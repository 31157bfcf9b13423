"""The help of every program: its options are those that tyro parses, in groups, with an example that parses."""

import dataclasses
import importlib
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tyro

from experiments import reproduce, train
from experiments.cli.command import Command
from experiments.cli.errors import parse
from experiments.cli.option_groups import GROUPS, OTHER
from experiments.cli.options import options_of

ROOT = Path(__file__).parents[2]
NAMES = sorted(
    path.relative_to(ROOT / "experiments").with_suffix("").as_posix().replace("/", ".").removesuffix(".__main__")
    for path in (ROOT / "experiments").rglob("*.py")
    if "\nCOMMAND = Command(" in path.read_text(encoding="utf-8")
)
GROUPED = ("train", "reproduce", "reproduce_methods", "convergence", "show_batch")


def command(name: str) -> Command[Any]:
    folder = ROOT / "experiments" / name.replace(".", "/")
    found = importlib.import_module(f"experiments.{name}{'.__main__' if folder.is_dir() else ''}").COMMAND
    assert found.name == name
    return found


def tyros_help(of: Command[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "9999")  # each option on one line
    with pytest.raises(SystemExit):
        tyro.cli(of.arguments, args=["--help"])
    return capsys.readouterr().out


def test_every_program_is_found() -> None:
    mains = [path for path in (ROOT / "experiments").rglob("*.py") if 'if __name__ == "__main__":' in path.read_text()]
    assert len(NAMES) == len(mains) - 1  # the subprocesses of a benchmark have no options


@pytest.mark.parametrize("name", NAMES)
def test_the_help_has_the_options_and_texts_of_tyro(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    of = command(name)
    lines = [line.strip(" │") for line in tyros_help(of, capsys, monkeypatch).splitlines()]
    theirs, ours = " ".join(" ".join(lines).split()), list(options_of(of.arguments))
    flags = [re.match(r"(--\w[\w.-]*)(?:, (--[\w.-]+))?", line) for line in lines]
    assert {flag for found in flags if found for flag in found.groups() if flag} == {
        flag for option in ours for flag in option.flags
    }
    for option in ours:
        assert option.meaning
        note = option.note if option.flags else ""  # tyro accepts no runs, which the program then refuses
        assert f"{option.meaning} {note}".strip() in theirs


@pytest.mark.parametrize("name", NAMES)
def test_the_help_has_every_option_once_and_ends_with_an_example_that_parses(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    of = command(name)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as stop:
        parse(of)
    assert not stop.value.code
    printed = capsys.readouterr().out
    listed = re.findall(
        r"^  (--[\w.-]+|[A-Z]+|\[[A-Z]+ \.\.\.])",
        printed.partition("options]")[2].rpartition("example:")[0],
        re.MULTILINE,
    )
    assert sorted(listed) == sorted((*option.flags, option.value)[0] for option in options_of(of.arguments))
    *_, before, example = printed.splitlines()
    assert before == "example:"
    indent, _, words = example.strip().partition(f"{of.call} ")
    assert (indent, bool(words)) == ("", True)
    monkeypatch.setattr(sys, "argv", [name, *words.split()])
    assert isinstance(parse(of), of.arguments)


@pytest.mark.parametrize("name", GROUPED)
def test_the_essential_options_are_ten_and_come_first(name: str) -> None:
    of = command(name)
    groups = of.groups()
    assert list(groups) == [of.purpose, *(title for title in GROUPS if title in groups)]
    assert OTHER not in groups, f"add {groups[OTHER]} to experiments/cli/option_groups.py"
    assert [option.name for option in groups[of.purpose]] == list(of.essential)
    assert len(of.essential) == 10


def test_the_groups_of_a_run_are_named_by_what_they_set() -> None:
    expected = ["what to train", "method", "batch and rate", "data", "network", "devices", "saving"]
    assert [title for title in train.COMMAND.groups() if title != "sharpness"] == expected


def test_the_help_of_a_row_shows_its_defaults(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["reproduce", "--config", "cifar100_resnet18", "--help"])
    with pytest.raises(SystemExit):
        reproduce.main()
    printed = " ".join(capsys.readouterr().out.split())
    assert "(default: cifar100)" in printed
    assert "(default: 200x128)" in printed


@dataclasses.dataclass(frozen=True)
class Odd:
    """A title.

    Attributes:
      rates: Rates of 1%, by name.
      flag: On or off.
      limit: A limit.
    """

    rates: tuple[tuple[str, float], ...] = (("a", 0.5), ("b", 1.0))
    flag: bool = True
    limit: float | None = 2.0
    kept: tyro.conf.Positional[str] = "x"


def test_options_of_each_type() -> None:
    rates, flag, limit, kept = options_of(Odd)
    assert (rates.value, rates.note) == ("[STR FLOAT ...]", "(default: a 0.5 b 1.0)")
    assert (flag.value, flag.flags, flag.note) == ("", ("--flag", "--no-flag"), "(default: True)")
    assert (limit.value, limit.note) == ("FLOAT or None", "(default: 2.0)")
    assert (kept.flags, kept.is_required) == ((), False)
    assert "Rates of 1%, by name." in Command("odd", Odd, "--flag").help()


COMPLETED = r"""
experiments.train() { :; }
source "$1"
COMP_WORDS=(experiments.train --met) COMP_CWORD=1
_tyro_experiments_train
printf '%s\n' "${COMPREPLY[@]}"
complete -p experiments.train
"""


def test_bash_completes_the_options_of_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "completion"
    monkeypatch.setattr(sys, "argv", ["train", "--tyro-write-completion", "bash", str(script)])
    with pytest.raises(SystemExit):
        parse(train.COMMAND)
    done = subprocess.run(  # noqa: S603 - our own program
        ["/bin/bash", "-c", COMPLETED, "bash", str(script)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[0] == "--method"
    assert done.stdout.splitlines()[-1].startswith("complete -F _tyro_experiments_train experiments.train")


HELP_AND_TYPO = """
import contextlib, importlib, io, sys
sys.modules.update(dict.fromkeys(["tensorflow", "tensorflow_datasets", "scipy.stats"]))  # an import of them fails
from jax._src import xla_bridge
for name in sys.argv[1:]:
    program = importlib.import_module(name)
    for words, code in ((["--help"], 0), (["--typo"], 2), (["--rho", "-1"], 2)):
        sys.argv = [name, *words]
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as error:
            try:
                program.main()
            except SystemExit as ended:
                assert ended.code == code, (name, words, ended.code)
        assert ("example:" in out.getvalue()) is (code == 0), name
        assert bool(error.getvalue()) is (code == 2), name
assert not xla_bridge.backends_are_initialized()
"""


def test_help_typos_and_refused_settings_do_not_import_tensorflow_or_compute() -> None:
    modules = [command(name).arguments.__module__ for name in NAMES]
    done = subprocess.run([sys.executable, "-c", HELP_AND_TYPO, *modules], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_help_and_typos_take_at_most_two_and_a_half_times_the_imports_of_any_program() -> None:
    imports = [sys.executable, "-c", "import jax, optax, flax, tyro, rich"]
    commands = {(name, word): ["-m", f"experiments.{name}", word] for name in NAMES for word in ("--help", "--typo")}
    seconds: dict[object, list[float]] = {key: [] for key in ("imports", *commands)}
    for _ in range(3):
        for key, command in {"imports": imports, **{k: [sys.executable, *c] for k, c in commands.items()}}.items():
            began = time.perf_counter()
            subprocess.run(command, capture_output=True, cwd=ROOT, check=False)  # noqa: S603
            seconds[key].append(time.perf_counter() - began)
    reference = statistics.median(seconds.pop("imports"))
    assert {key: ratio for key, each in seconds.items() if (ratio := statistics.median(each) / reference) > 2.5} == {}
