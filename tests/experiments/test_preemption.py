"""SIGTERM and Ctrl-C: each exit has its code, whenever and however many signals arrive."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from experiments.cli.errors import start
from experiments.training import preemption
from experiments.training.exceptions import Terminated
from experiments.training.preemption import on_sigterm

ROOT = Path(__file__).parents[2]
CODES = {signal.SIGTERM: 75, signal.SIGINT: 130}


@pytest.fixture(autouse=True)
def enabled_signals() -> Iterator[None]:
    """Enables both signals, because the workers of pytest-xdist ignore Ctrl-C."""
    before = {number: signal.getsignal(number) for number in CODES}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def code_of(main: Callable[[], None]) -> object:
    with pytest.raises(SystemExit) as stop:
        start(main)
    return stop.value.code


def send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


def python(*arguments: str) -> "subprocess.Popen[str]":
    """A Python process that receives Ctrl-C, as in a terminal."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *arguments], cwd=ROOT, **pipes)  # noqa: S603


@pytest.mark.parametrize("number", CODES)
def test_a_signal_ends_a_program_with_its_exit_code_and_a_message(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of(lambda: send(number)) == CODES[number]
    assert capsys.readouterr().err == "stopped.\n"


@pytest.mark.parametrize("first", CODES)
@pytest.mark.parametrize("second", CODES)
def test_the_first_signal_decides_and_open_resources_are_closed(first: signal.Signals, second: signal.Signals) -> None:
    closed = []

    def main() -> None:
        try:
            send(first)
        finally:
            send(second, second)
            closed.append(True)

    assert code_of(main) == CODES[first]
    assert closed
    send(second, first)  # until the process has ended


def test_a_signal_whose_exception_was_lost_can_be_repeated() -> None:
    """Python drops exceptions in `__del__` and in the callbacks of weak references."""

    def main() -> None:
        with suppress(KeyboardInterrupt):
            send(signal.SIGINT)
        send(signal.SIGTERM)

    assert code_of(main) == 75


def test_signals_after_the_work_is_done_are_ignored() -> None:
    start(lambda: None)
    send(signal.SIGTERM, signal.SIGINT)


@pytest.mark.parametrize("error", [ValueError("ours"), SystemExit(2)])
def test_signals_after_another_exit_are_ignored(error: BaseException) -> None:
    def main() -> None:
        raise error

    with pytest.raises(type(error)):
        start(main)
    send(signal.SIGTERM, signal.SIGINT)


def test_a_run_stops_at_the_first_signal_and_later_ones_are_ignored() -> None:
    def main() -> None:
        with on_sigterm() as stop:
            assert not stop(0)
            send(signal.SIGTERM, signal.SIGTERM, signal.SIGINT)
            assert stop(0)
        send(signal.SIGTERM, signal.SIGINT)
        raise Terminated("stopped after 3 updates")

    assert code_of(main) == 75


def test_ctrl_c_of_a_background_job_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    preemption.raise_in_main()
    send(signal.SIGINT)
    with pytest.raises(Terminated):
        send(signal.SIGTERM)


@pytest.mark.parametrize("number", CODES)
def test_a_signal_during_the_imports_ends_without_a_traceback(number: signal.Signals) -> None:
    """Uses the handler of `experiments/__init__.py`, with a sleep in place of the slow imports."""
    code = "import time; from experiments.cli import standard_streams; standard_streams.prepare(); "
    code += "print('up', flush=True); "
    with python("-c", code + "time.sleep(60)") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        _, output = process.communicate()
    assert (process.returncode, output) == (CODES[number], "stopped.\n")


@pytest.mark.parametrize("number", CODES)
def test_signals_during_shutdown_are_ignored(number: signal.Signals) -> None:
    """Python has removed its handlers by then, so a second SIGTERM would kill the process with another code."""
    code = (
        "import threading, time; from experiments.training import preemption; "
        "preemption.raise_in_main(); preemption.ignore(); "
        "threading.Thread(target=lambda: (print('up', flush=True), time.sleep(0.3))).start()"
    )
    with python("-c", code) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        while process.poll() is None:
            process.send_signal(number)
            time.sleep(0.01)
    assert process.returncode == 0


@pytest.mark.long
@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("number", CODES)
def test_a_signal_during_the_imports_gives_the_exit_code(
    number: signal.Signals, seconds: float, tmp_path: Path
) -> None:
    with python("-m", "experiments.train", "--output", str(tmp_path / "run")) as process:
        time.sleep(seconds)
        process.send_signal(number)
        _, output = process.communicate()
    assert (process.returncode, output) == (CODES[number], "stopped.\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.long
@pytest.mark.parametrize("number", CODES)
def test_a_run_with_many_signals_ends_with_the_code_of_the_first(number: signal.Signals, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["--method", "sgd", "--batch-plan", "2000x64", "--saving.every", "20", "--output", str(run)]
    with python("-m", "experiments.train", *arguments) as process:
        while process.poll() is None and not (run / "checkpoints").exists():
            time.sleep(0.02)
        while process.poll() is None:
            process.send_signal(number)
            time.sleep(0.05)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == CODES[number]
