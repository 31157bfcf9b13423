"""Keeps compiled functions on disk, so that later programs do not compile them again."""

import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import jax

_NOT_KEPT = "compiled functions are not cached"


def folder() -> Path:
    """Returns the folder of the cache: `sam_optax/compiled` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sam_optax" / "compiled"


def _make_private(where: Path) -> bool:
    """Sets a folder's mode to 0700; returns False if another user owns it or could write into it before."""
    if not hasattr(os, "getuid"):  # Windows has another permission model
        return True
    found = where.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return False
    where.chmod(0o700)
    return True


def switch_on() -> str | None:
    """Enables the persistent cache for functions of any size, unless the user has configured or disabled JAX's cache.

    Returns:
      The reason why the cache is not used: the folder cannot be written, or other users could put programs into it.
      None if there is no such reason.
    """
    options: Any = jax.config  # its options have no type annotations
    is_set = "JAX_COMPILATION_CACHE_DIR" in os.environ or options.jax_compilation_cache_dir
    if is_set or not options.jax_enable_compilation_cache:
        return None
    try:
        where = folder()
        where.parent.mkdir(parents=True, exist_ok=True)
        where.mkdir(mode=0o700, exist_ok=True)
        if not _make_private(where):
            reason = f"other users can write to {where}, so its programs cannot be trusted"
            return f"{_NOT_KEPT}: {reason}. Remove it, or set JAX_COMPILATION_CACHE_DIR."
        with tempfile.TemporaryFile(dir=where):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home folder
        return f"{_NOT_KEPT}: {error}."
    jax.config.update("jax_compilation_cache_dir", str(where))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return None
