"""The comparison with PyTorch, which is an optional dependency: what is compared, and the error if it is missing."""

import contextlib
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import peers


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", "--models", "--rounds", "10", *arguments])
    benchmark.main()


def test_missing_pytorch_is_reported_with_the_install_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(peers, "is_installed", lambda: False)
    monkeypatch.setattr(peers, "figures_of_a_process", lambda model: pytest.fail("there is nothing to measure with"))
    call(monkeypatch, "--output", str(tmp_path))
    assert "make benchmark-peers installs torch and pytorch_optimizer" in capsys.readouterr().out


def test_times_of_both_frameworks_are_scaled_to_an_epoch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    seconds = {"SAM": 1.0, "PyTorch's SAM": 2.0, "GSAM": 3.0, "PyTorch's GSAM": 4.0}
    asked: list[tuple[str, str]] = []

    def pair(model: str, method: str) -> dict[str, peers.Subject]:
        asked.append((model, method))
        return {method: lambda: None, f"PyTorch's {method}": lambda: None}

    asked_devices: list[str] = []

    def run_here(command: list[str], *, env: dict[str, str], **how: Any) -> Any:
        asked_devices.append(env["JAX_NUM_CPU_DEVICES"])
        monkeypatch.setattr(sys, "argv", command[2:])
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            peers.main()
        return subprocess.CompletedProcess(command, 0, printed.getvalue())

    monkeypatch.setattr(peers, "is_installed", lambda: True)
    monkeypatch.setattr(peers, "_pair", pair)
    monkeypatch.setattr(peers, "cores", lambda: 2)
    monkeypatch.setattr(peers, "race", lambda entrants, rounds: {name: rounds * [seconds[name]] for name in entrants})
    monkeypatch.setattr(peers.subprocess, "run", run_here)
    call(monkeypatch, "--output", str(tmp_path), "--peers", "vit_tiny")
    assert asked == [("vit_tiny", "SAM"), ("vit_tiny", "GSAM")]
    printed = capsys.readouterr().out
    assert "vit_tiny, batch 128, 2 devices, 50,000 images" in printed
    assert asked_devices == ["2"]
    sam, gsam = peers.peer_figures("vit_tiny")
    of_a_turn = 50_000 / 256  # two steps
    assert (sam.subject, sam.reference, gsam.subject) == ("SAM", "PyTorch's SAM", "GSAM")
    assert sam.amounts == pytest.approx(3 * (of_a_turn,))
    assert gsam.quartiles == pytest.approx(3 * (0.75,))


def test_steps_with_different_results_are_not_compared() -> None:
    peers.check([2.3, 2.2], [2.3, 2.2001], "net, SAM")
    with pytest.raises(ValueError, match=r"net, SAM: losses are \[2\.3, 2\.2\] here and \[2\.3, 2\.1\] in PyTorch"):
        peers.check([2.3, 2.2], [2.3, 2.1], "net, SAM")
