"""Two servers with different hash seeds, shared by all tests of the zoo."""

import pytest

from tests.zoo.harness import Server


@pytest.fixture(scope="session")
def servers():
    pair = Server(hash_seed=1), Server(hash_seed=2)
    yield pair
    for server in pair:
        server.close()
