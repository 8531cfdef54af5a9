"""A tiny encoder and its training data, made once."""

import os

import pytest

from tests.embedding import tiny


@pytest.fixture(autouse=True)
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def own_environment():
    """Options of the Trainer set variables (`--fsdp` does), which the next test must not see."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    return tiny.write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return tiny.write_rows(tmp_path_factory.mktemp("data") / "train.jsonl", tiny.rows(tiny.ROWS))
