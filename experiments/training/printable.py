"""Text that comes from files and folders, made safe to be printed."""

import unicodedata

_KEPT = "\n"


def printable(text: str) -> str:
    """`text` without control characters, which a terminal would obey, and without lone surrogates; lines stay lines."""
    return "".join(each for each in text if each in _KEPT or unicodedata.category(each) not in ("Cc", "Cf", "Cs"))
