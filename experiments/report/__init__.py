"""Reports of runs: the answers of a study, with tables and pictures, as a page and as a document."""

from experiments.report.page import publish, publish_again

__all__ = ["publish", "publish_again"]
