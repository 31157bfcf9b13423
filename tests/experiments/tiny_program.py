"""`experiments.train` with a network that compiles quickly, to be run in a separate process."""

from experiments import models, train
from experiments.cli.errors import start
from experiments.models import registry
from tests import conftest  # noqa: F401 - the same devices and the same cache as the tests have
from tests.experiments.conftest import TinyNet


def main() -> None:
    """Train it, as the command line says."""
    registry._BUILDERS["tiny"] = TinyNet
    models.NAMES = (*models.NAMES, "tiny")
    start(train.main)


if __name__ == "__main__":
    main()
