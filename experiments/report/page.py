"""A report as one HTML page: no script, no address, its pictures inside, so that it can be sent."""

import base64
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from experiments.cli.tables import figure_columns
from experiments.report.drawing import Picture
from experiments.report.section import Section

_TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)


def page(sections: list[Section]) -> str:
    """The page."""
    return _TEMPLATES.get_template("page.html").render(
        sections=sections, embedded=_embedded, figure_columns=figure_columns
    )


def _embedded(picture: Picture) -> str:
    """The address of a picture that stands in the page itself."""
    return f"data:image/svg+xml;base64,{base64.b64encode(picture.drawing).decode('ascii')}"
