"""The docstrings' `Example:` is a section of code and text, which Griffe knows by the name `Examples:` alone."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Renames the section in what the site reads; the source stays as it is."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every module, class, function and attribute that Griffe has read."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
