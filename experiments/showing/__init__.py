"""A batch of a run in pictures: what each step of the recipe makes of it."""

from experiments.showing.grid import draw
from experiments.showing.views import View, views

__all__ = ["View", "draw", "views"]
