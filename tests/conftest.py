"""One workbench for all tests of the engine: its preloaded servers and its runs are shared."""

import pytest

from resumecheck.check import Workbench


@pytest.fixture(scope="session")
def workbench():
    with Workbench() as bench:
        yield bench
