import shutil

import pytest

from tests.plugin.outside import EXAMPLE


@pytest.fixture
def project(pytester):
    """A project with the example `masked_words.py`, whose `build` loses state and whose `build_keyed` does not."""
    shutil.copy(EXAMPLE, pytester.path)
    return pytester
