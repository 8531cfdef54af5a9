"""A target beside a lock, which no pickle can hold."""

import threading

from tests.targets.plain import make_model, make_trainer

LOCK = threading.Lock()
PLACES = threading.local()


def build_at(output_dir, *, learning_rate, dropout):
    """The base set-up with another rate and no dropout."""
    with LOCK:
        model = make_model()
    model.dropout.p = dropout
    return make_trainer(output_dir, model=model, learning_rate=learning_rate)
