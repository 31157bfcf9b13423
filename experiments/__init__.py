"""The study of Harada and Iiduka (arXiv 2409.09984), reproduced with `sam_optax`."""

import sys

if sys.argv[:1] == ["-m"]:  # `python -m experiments.NAME` is about to import the program, which takes seconds
    import experiments.training.deadline  # noqa: F401 - the time limit of a study counts from this import
    from experiments.cli import standard_streams

    standard_streams.prepare()
