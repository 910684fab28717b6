from pathlib import Path

import pytest

from capibara_devcluster.tools import provide
from support.chart import Helm


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    folder: Path = provide.provide(("helm",), tmp_path_factory.mktemp("helm"))
    return Helm(folder / "helm")
