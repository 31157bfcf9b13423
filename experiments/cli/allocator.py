"""Makes the C library's allocator keep freed memory, which saves time on CPUs.

XLA allocates the temporary arrays of a step anew at each step. By default, glibc returns large blocks to the system as
soon as they are freed, so the kernel has to map and clear the same pages again at each step.
"""

import ctypes
import sys

_OPTIONS = {-8: 1, -4: 0, -1: -1, -2: 64 << 20}
"""The numbers of glibc's options with their values.

They are `M_ARENA_MAX`, one pool for all threads; `M_MMAP_MAX`, no separate mappings for large blocks;
`M_TRIM_THRESHOLD`, never return memory; and `M_TOP_PAD`, grow the pool by 64 MiB at a time.
"""


def is_glibc() -> bool:
    """Returns whether the program runs on the GNU C library."""
    return sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")


def keep_freed_memory() -> bool:
    """Makes glibc keep freed memory for later allocations; call it before JAX starts its threads.

    Returns:
      Whether the options were set. Without glibc nothing happens.
    """
    return is_glibc() and all(ctypes.CDLL(None).mallopt(option, value) for option, value in _OPTIONS.items())
