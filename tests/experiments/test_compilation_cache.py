"""The programs cache compiled functions, unless the user has chosen otherwise."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from experiments.cli import compilation_cache, errors

OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
    "jax_enable_compilation_cache",
)


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """JAX with its default settings, and a folder for caches."""
    before = {name: getattr(jax.config, name) for name in OPTIONS}
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)


def test_programs_cache_all_compiled_functions_however_small(unset: Path) -> None:
    options = []
    errors.start(lambda: options.append([getattr(jax.config, name) for name in OPTIONS]))
    assert options == [[str(unset / "sam_optax" / "compiled"), 0.0, -1, True]]
    assert (unset / "sam_optax" / "compiled").is_dir()


def test_only_the_user_can_access_the_cache_folder(unset: Path) -> None:
    folder = unset / "sam_optax" / "compiled"
    for mode in (None, 0o755):  # an earlier version created it with this mode, which nobody else can write to
        if mode is not None:
            folder.chmod(mode)
        assert compilation_cache.switch_on() is None
        assert jax.config.jax_compilation_cache_dir == str(folder)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        jax.config.update("jax_compilation_cache_dir", None)


@pytest.mark.parametrize("case", ["open to the group", "a link", "of another user"])
def test_a_cache_folder_that_others_can_write_to_is_not_used(
    unset: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    folder = unset / "sam_optax" / "compiled"
    folder.parent.mkdir()
    if case == "a link":
        (unset / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(unset / "elsewhere")
    else:
        folder.mkdir(mode=0o700)
    if case == "open to the group":
        folder.chmod(0o770)
    if case == "of another user":
        monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    warning = compilation_cache.switch_on()
    assert warning is not None
    assert warning.startswith(f"compiled functions are not cached: other users can write to {folder}, so")
    assert jax.config.jax_compilation_cache_dir is None


def test_the_default_cache_folder_is_in_the_users_home(unset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert compilation_cache.folder() == Path.home() / ".cache" / "sam_optax" / "compiled"


def test_settings_of_the_user_are_kept(unset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jax.config.update("jax_enable_compilation_cache", False)
    assert compilation_cache.switch_on() is None
    assert jax.config.jax_compilation_cache_dir is None
    jax.config.update("jax_enable_compilation_cache", True)
    for folder in ("/elsewhere", ""):
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", folder)
        assert compilation_cache.switch_on() is None
        assert jax.config.jax_compilation_cache_dir is None
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    jax.config.update("jax_compilation_cache_dir", "/elsewhere")
    assert compilation_cache.switch_on() is None
    assert jax.config.jax_compilation_cache_dir == "/elsewhere"
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 1.0
    assert not list(unset.iterdir())


def test_a_read_only_cache_folder_does_not_stop_a_run(unset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (unset / "sam_optax").write_text("a file in its place")
    ran = []
    errors.start(lambda: ran.append(True))
    assert ran == [True]
    assert jax.config.jax_compilation_cache_dir is None
    assert "compiled functions are not cached" in capsys.readouterr().err
