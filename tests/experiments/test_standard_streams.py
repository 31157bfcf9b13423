"""A closed, full or unread standard output does not end a run, and any width and encoding work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.cli import standard_streams
from experiments.cli.standard_streams import NARROWEST, WIDEST, LossyFile, OutputLost

ROOT = Path(__file__).parents[2]
PREPARED = "import sys; from experiments.cli import standard_streams; standard_streams.prepare_streams(); "
SHOWN = PREPARED + "print('x' * 100_000); print('y', flush=True); sys.exit(7)"


def shell(command: str, code: str, **environment: str) -> tuple[str, str]:
    """The output of a command in bash, which may call a Python program."""
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    done = subprocess.run(  # noqa: S603
        ["/bin/bash", "-c", command, "bash", sys.executable, code], capture_output=True, text=True, env=env, check=False
    )
    return done.stdout, done.stderr


@pytest.mark.parametrize("where", ["> /dev/full", ">&-", "<&- >&-", "> /dev/full 2>&1"])
def test_lost_output_does_not_change_the_exit_code(where: str) -> None:
    assert shell(f'"$1" -c "$2" {where}; echo $? >&2', SHOWN) == ("", "7\n")


def test_a_reader_that_ends_does_not_end_the_program() -> None:
    _, errors = shell('"$1" -c "$2" | true; echo ${PIPESTATUS[0]} >&2', SHOWN)
    assert errors == "7\n"


def test_a_file_that_is_opened_later_is_not_standard_output(tmp_path: Path) -> None:
    path = tmp_path / "file"
    code = PREPARED + f"file = open({str(path)!r}, 'w'); import os; os.write(1, b'stray'); file.write('mine')"
    shell('"$1" -c "$2" >&- 2>&- <&-', code)
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("> /dev/full", "2 standard output cannot be written: No space left on device."),
        ("| (exec <&-; sleep 0.2)", "141 "),
        (">&-", "7"),
    ],
)
def test_lost_output_ends_a_program_that_only_shows(where: str, expected: str) -> None:
    code = PREPARED + (
        "from experiments.cli.standard_streams import needed, OutputLost\n"
        "try:\n"
        "  with needed():\n"
        "    for _ in range(100): print('x' * 100_000)\n"
        "except OutputLost as lost: print(lost.code, lost.words, file=sys.stderr)\n"
        "else: print(7, file=sys.stderr)"
    )
    assert shell(f'"$1" -c "$2" {where}', code)[1].rstrip("\n") == expected


def test_characters_missing_from_the_encoding_are_replaced() -> None:
    assert shell('"$1" -c "$2"', PREPARED + "print('1 ± 2')", PYTHONIOENCODING="ascii") == ("1 ? 2\n", "")


def test_lost_output_is_an_error_only_where_it_is_needed(tmp_path: Path) -> None:
    number = os.open("/dev/full", os.O_WRONLY)
    file = LossyFile(number)
    assert file.write(b"lost") == 4
    os.dup2(full := os.open("/dev/full", os.O_WRONLY), number)
    file.is_needed = True
    with pytest.raises(OutputLost, match="No space left"):
        file.write(b"lost")
    os.close(full)
    os.close(number)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("1", str(NARROWEST)),
        ("39", str(NARROWEST)),
        ("80", "80"),
        ("99999999999999999999", str(WIDEST)),
        *((junk, None) for junk in ("0", "-1", "", "wide", "²", "1.5")),
    ],
)
def test_the_width_is_large_enough_for_a_layout(given: str, taken: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standard_streams.os, "get_terminal_size", lambda number: os.terminal_size((100, 24)))
    monkeypatch.setenv("COLUMNS", given)
    monkeypatch.setenv("LINES", "0")
    standard_streams.correct_size()
    assert os.environ.get("COLUMNS") == taken
    assert "LINES" not in os.environ


def test_a_terminal_that_is_too_narrow_is_treated_as_wider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standard_streams.os, "get_terminal_size", lambda number: os.terminal_size((1, 24)))
    monkeypatch.setenv("COLUMNS", "0")  # so that it is restored after the test
    standard_streams.correct_size()
    assert os.environ["COLUMNS"] == str(NARROWEST)


@pytest.mark.parametrize("count", ["0", "-2", "junk", "99999", "²", ""])
def test_an_impossible_number_of_devices_is_refused(count: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", count)
    with pytest.raises(ValueError, match=f"JAX_NUM_CPU_DEVICES is '{count}' in the environment: give an integer"):
        standard_streams.check_environment()


@pytest.mark.long
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ('"$1" -m experiments.report --help > /dev/full', 2),
        ('"$1" -m experiments.report --help >&-', 0),
        ('(exec "$1" -m experiments.report --help; echo >&2) | true; exit ${PIPESTATUS[0]}', 141),
        ('COLUMNS=1 "$1" -m experiments.report --help > /dev/null', 0),
        ('JAX_PLATFORMS=junk "$1" -m experiments.train --output /dev/null/none', 2),
        ('JAX_NUM_CPU_DEVICES=0 "$1" -m experiments.train --output /dev/null/none', 2),
    ],
)
def test_programs_end_without_a_traceback(command: str, code: int) -> None:
    _, errors = shell(f"({command}); echo code $? >&2", "")
    assert errors.endswith(f"code {code}\n")
    assert "Traceback" not in errors


@pytest.mark.long
def test_a_run_with_lost_or_unread_output_is_complete(tmp_path: Path) -> None:
    for name, where in {"full": "> /dev/full", "unread": "| true", "closed": ">&- 2>&-"}.items():
        run = f'"$1" -m experiments.train --method sgd --batch-plan 1x512 --output {tmp_path / name} {where}'
        assert shell(f"{run}; echo ${{PIPESTATUS[0]}} >&2", "")[1] == "0\n"
        assert (tmp_path / name / "result.json").exists()
