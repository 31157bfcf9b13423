"""The sharpness of runs: what is measured, on which examples, and where it is stored."""

import json
import math
import types
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments.cli.output_folder import claim
from experiments.config import Config
from experiments.report.page import publish
from experiments.runner import run, sharpness_records
from experiments.runner.finished_runs import find_runs
from experiments.runner.program import build
from experiments.sharpness import SharpnessSettings, has_measured, measure_run, replay
from experiments.sharpness.measures import MEASURES, trained
from experiments.training import checkpoint
from sam_optax import sharpness as measures
from tests.experiments.conftest import TinyNet
from tests.experiments.finished_runs import finished, measured
from tests.experiments.sharpness_records import WAY, add_lines

QUICK = {"steps": 2, "examples": 48, "batch_size": 32}


def test_the_default_protocol_is_that_of_the_paper() -> None:
    settings = SharpnessSettings()
    assert (settings.norm, settings.adaptive, settings.rho, settings.steps) == ("linf", False, 0.0002, 20)
    assert (settings.examples, settings.batch_size, settings.restarts) == (1024, 128, 1)
    assert settings.radii(11_220_132) == (0.0002,)  # for ResNet-18 both radii are the same
    assert settings.radii(77_754) == pytest.approx((0.0002, 0.0024), rel=2e-3)
    assert SharpnessSettings(radius_rms=None).radii(100) == (0.0002,)
    assert SharpnessSettings(norm="l2", rho=0.1).radii(100, "l2") == (0.1, 0.67)
    assert SharpnessSettings(norm="l2", rho=0.1).radii(100) == (0.1, 0.067)


def test_written_values_are_those_of_the_library_for_the_checkpoint(tiny: str, tmp_path: Path) -> None:
    config, dataset = finished(tmp_path, tiny)
    measure_run(tmp_path, config, dataset, SharpnessSettings(**QUICK))
    first, second = measured(tmp_path)
    state = checkpoint.restore(tmp_path / "checkpoint", build(config, dataset)[0])

    images = (dataset.train.images[:48].astype(np.float32) - dataset.mean) / dataset.std
    stats, labels = state.model_state["norm"], dataset.train.labels[:48]

    def loss_fn(params: Any, batch: Any) -> jax.Array:
        x, y = batch
        normal = (x.reshape(len(x), -1) - stats["mean"]) / jnp.sqrt(stats["var"] + 1e-5)
        features = normal * params["norm"]["scale"] + params["norm"]["bias"]
        logits = features @ params["head"]["kernel"] + params["head"]["bias"]
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(y)), y])

    batches = [(images[:32], labels[:32]), (images[32:], labels[32:])]
    size = sum(x.size for x in jax.tree.leaves(state.params))
    for record, rho in ((first, 0.0002), (second, 0.67 / math.sqrt(size))):
        expected = measures.worst_case(loss_fn, state.params, batches, rho=rho, steps=2)
        assert record["rho"] == pytest.approx(rho, rel=1e-6)
        assert record["sharpness"] == pytest.approx(float(expected.sharpness), rel=1e-3)
        assert record["first_order"] == pytest.approx(float(expected.first_order), rel=1e-4)
        assert record["loss"] == pytest.approx(float(expected.loss), rel=1e-5)
        assert (record["epoch"], record["step"], record["examples"], record["parameters"]) == (2, 16, 48, size)


def test_every_measure_leaves_a_record(tiny: str, tmp_path: Path) -> None:
    config, dataset = finished(tmp_path, tiny, method="msam")
    names = MEASURES[1:]
    settings = SharpnessSettings(**QUICK, measures=names)
    assert not has_measured(tmp_path, config, dataset, settings)
    measure_run(tmp_path, config, dataset, settings)
    assert has_measured(tmp_path, config, dataset, settings)
    assert [len(measured(tmp_path, name)) for name in names] == [1, 2, 1, 1, 1, 1]
    [curve], [landscape] = measured(tmp_path, "curve"), measured(tmp_path, "landscape")
    assert len(curve["rho"]) == len(curve["sharpness"]) == len(curve["error"]) == 9
    assert np.shape(landscape["loss"]) == (21, 21)
    assert landscape["loss"][10][10] == pytest.approx(curve["loss"], rel=1e-5)


def test_measuring_again_replaces_records_of_the_same_protocol_and_adds_others(tiny: str, tmp_path: Path) -> None:
    config, dataset = finished(tmp_path, tiny)
    for settings in (QUICK, QUICK, {**QUICK, "adaptive": True}, {**QUICK, "normalize_logits": True}):
        measure_run(tmp_path, config, dataset, SharpnessSettings(**settings))
    assert [record["adaptive"] for record in measured(tmp_path)] == [False, False, True, True, False, False]
    plain, normal = (measured(tmp_path)[i] for i in (0, 4))
    assert normal["loss"] != plain["loss"]
    assert has_measured(tmp_path, config, dataset, SharpnessSettings(**QUICK, adaptive=True))
    assert not has_measured(tmp_path, config, dataset, SharpnessSettings(**QUICK, adaptive=True, rho=0.1))
    for other in ({"norm": "l2"}, {"examples": 64}, {"during": 1}, {"measures": ("trace",)}):
        assert not has_measured(tmp_path, config, dataset, SharpnessSettings(**{**QUICK, **other}))


def test_batchnorm_is_given_the_statistics_of_the_training_examples(tiny: str, tmp_path: Path) -> None:
    config, dataset = finished(tmp_path, tiny)
    state = checkpoint.restore(tmp_path / "checkpoint", build(config, dataset)[0])
    network = trained(config, dataset, state, SharpnessSettings(batch_size=64, reestimate_batchnorm=True))
    pixels = ((dataset.train.images.astype(np.float32) - dataset.mean) / dataset.std).reshape(8, 64, -1)
    statistics = network.variables["model_state"]["norm"]
    np.testing.assert_allclose(statistics["mean"], pixels.mean((0, 1)), atol=1e-5)
    np.testing.assert_allclose(statistics["var"], pixels.var(1).mean(0), rtol=1e-4, atol=1e-5)
    as_trained = trained(config, dataset, state, SharpnessSettings())
    assert (as_trained.variables["model_state"]["norm"]["mean"] == state.model_state["norm"]["mean"]).all()


def test_a_replay_that_ends_with_another_state_adds_no_records(tiny: str, tmp_path: Path) -> None:
    config, dataset = finished(tmp_path / "run", tiny)
    finished(tmp_path / "other", tiny, rho=0.5)
    (tmp_path / "run" / "checkpoint").rename(tmp_path / "its_own")
    (tmp_path / "other" / "checkpoint").rename(tmp_path / "run" / "checkpoint")
    (
        tmp_path / "run" / "checkpoint" / "digests.json"
    ).unlink()  # they would reveal that the checkpoint is of another run
    assert not replay(tmp_path / "run", config, dataset, SharpnessSettings(**QUICK, during=1))
    assert sharpness_records.read(tmp_path / "run") == []


@pytest.mark.parametrize("during", [None, 1])
def test_sharpness_of_a_diverged_run_is_recorded_as_nonfinite(tiny: str, tmp_path: Path, during: int | None) -> None:
    config, dataset = finished(tmp_path, tiny, learning_rate=1e30, method="sgd")
    settings = SharpnessSettings(**QUICK, during=during)
    if during:
        assert replay(tmp_path, config, dataset, settings)
    else:
        measure_run(tmp_path, config, dataset, settings)
    assert {record["sharpness"] for record in measured(tmp_path) if record["epoch"] == 2} == {None}
    publish(find_runs([tmp_path]), tmp_path / "report", Console(quiet=True))


def test_measuring_does_not_count_as_training_time(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(run.time, "perf_counter", lambda: now[0])

    def watch(record: Any, state: Any) -> None:
        now[0] += 100.0

    def write(record: Any) -> None:
        now[0] += 0.25 if record["kind"] == "epoch" else 0.0

    config = Config.from_settings(model=tiny, method="sgd", batch_plan="2x64")
    writer = types.SimpleNamespace(write=write, close=lambda: None)
    result = run.execute(config, run.load(config), claim(tmp_path), run.RunContext(writers=(writer,), watch=watch))
    assert result.seconds == 0.5


def test_networks_of_one_shape_share_compiled_functions(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, traces, call_it = SharpnessSettings(**QUICK, measures=MEASURES), [], TinyNet.__call__

    def counted(self: TinyNet, images: jax.Array) -> jax.Array:
        traces.append(None)
        return call_it(self, images)

    runs = [finished(tmp_path / str(seed), tiny, seed=seed) for seed in (0, 1)]
    monkeypatch.setattr(TinyNet, "__call__", counted)
    measure_run(tmp_path / "0", *runs[0], settings)
    before = len(traces)
    measure_run(tmp_path / "1", *runs[1], settings)
    assert len(traces) == before


@pytest.mark.parametrize(
    "wrong",
    [
        *({name: 0} for name in ("rho", "steps", "restarts", "examples", "batch_size", "during")),
        *({"measures": names} for names in ((), ("flatness",), ("curve", "curve"))),
        *({"rho": math.nan}, {"radius_rms": -1.0}, {"norm": "l1"}),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SharpnessSettings(**wrong)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "sharpness.jsonl").write_text('{"kind": ')
    with pytest.raises(ValueError, match=r"sharpness\.jsonl is damaged"):
        sharpness_records.read(tmp_path)


def test_nonfinite_values_are_null_in_the_file(tmp_path: Path) -> None:
    loss = [[math.inf, 1.0], [math.nan, 2.0]]
    landscape = WAY | {"kind": "landscape", "epoch": 1, "step": 1, "coordinates": [0.0, 1.0], "loss": loss}
    add_lines(tmp_path, [landscape])
    line = (tmp_path / "sharpness.jsonl").read_text()
    assert json.loads(line)["loss"] == [[None, 1.0], [None, 2.0]]
