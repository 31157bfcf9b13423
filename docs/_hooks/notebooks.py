"""The site's pages of the notebooks: each `notebooks/NAME.ipynb` with its outputs, as `notebooks/NAME.md`.

A page of `docs` links to the notebook in the repository, `../notebooks/NAME.ipynb`. On the site, this becomes a link to
the notebook's page.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[2]
BADGE = re.compile(r"^\[!\[Open in Colab\].*$", re.MULTILINE)
PAGE = re.compile(r"`docs/([\w/]+\.md)`")
LINK = re.compile(r"\]\(\.\./notebooks/(\w+)\.ipynb\)")
NOTEBOOK = re.compile(r"`notebooks/(\w+)\.ipynb`")
TEMPLATE = """
{%- extends 'markdown/index.md.j2' -%}
{% block stream %}
``` { .text .output }
{{ output.text.rstrip() }}
```
{% endblock stream %}
"""


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages and their pictures; MkDocs calls it before it builds the site."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for name, content in page_of(path):
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replaces links to notebooks by links to their pages; MkDocs calls it for every page."""
    return LINK.sub(r"](notebooks/\1.md)", markdown)


def page_of(path: Path) -> Iterator[tuple[str, str | bytes]]:
    """Yields the name and the content of each file of a notebook's page."""
    exporter = MarkdownExporter(raw_template=TEMPLATE)
    text, resources = exporter.from_filename(
        str(path), {"unique_key": path.stem, "output_files_dir": f"{path.stem}_files"}
    )
    note = f"*This page is `notebooks/{path.name}` of the repository, with its outputs.*"
    text = NOTEBOOK.sub(r"[\1](\1.md)", PAGE.sub(r"[\1](../\1)", text))
    yield f"{path.stem}.md", BADGE.sub(note, text)
    yield from resources["outputs"].items()
