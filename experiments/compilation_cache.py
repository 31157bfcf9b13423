"""Compiled functions are kept on the disk, where the next program that needs them finds them."""

import os
import tempfile
from pathlib import Path

import jax


def folder() -> Path:
    """Where they are kept: `sam_optax/compiled` in the user's folder for caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sam_optax" / "compiled"


def switch_on() -> str | None:
    """Keep what is compiled from now on, however small, unless the user has set JAX's own cache, or switched it off.

    Returns:
      Why nothing is kept, where the folder cannot be written.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or jax.config.jax_compilation_cache_dir:
        return None
    if not jax.config.jax_enable_compilation_cache:
        return None
    try:
        where = folder()
        where.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=where):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home
        return f"compiled functions are not kept for the next program: {error}."
    jax.config.update("jax_compilation_cache_dir", str(where))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return None
