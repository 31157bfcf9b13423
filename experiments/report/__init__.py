"""What runs show: tables, paired differences, pictures, and a page of all of them."""

from experiments.report.publish import publish

__all__ = ["publish"]
