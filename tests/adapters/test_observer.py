"""The observer changes nothing: a recorded run has the same bits as the target trained by a script of its own."""

import json
import subprocess
import sys

import pytest

from tests.targets import observed

WORKERS = (0, 2)

pytestmark = pytest.mark.slow

#: A run in a fresh interpreter, which imports nothing of the observer but its digests.
SCRIPT = """
import json, random, sys
import numpy, torch
torch.set_num_threads(1)
from resumecheck.state.digest import digest
from resumecheck.state.streams import digest_streams
from tests.targets import plain
random.seed(); numpy.random.seed()
trainer = getattr(plain, sys.argv[1])(sys.argv[2])
batches = []
original = trainer.compute_loss
def compute_loss(model, inputs, **kwargs):
    batches.append(digest(dict(inputs)))
    return original(model, inputs, **kwargs)
trainer.compute_loss = compute_loss
trainer.train()
weights = {f"parameter|{name}": digest(tensor) for name, tensor in trainer.model.named_parameters()}
print(json.dumps({"weights": weights, "batches": batches, "torch": digest_streams()["rng-torch"]}))
"""


@pytest.fixture(scope="module")
def unobserved(tmp_path_factory):
    """The facts of a run without any observer, made once for each target and number of workers."""
    made = {}

    def facts(target, workers):
        if (target, workers) not in made:
            directory = tmp_path_factory.mktemp("unobserved") / target
            made[target, workers] = observed.watch_in_fork(target, "unobserved", workers, directory)
        return made[target, workers]

    return facts


def different(facts, others):
    return [name for name in facts if facts[name] != others[name]]


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("observer", [name for name in observed.OBSERVERS if name != "unobserved"])
def test_no_observer_changes_weights_moments_streams_or_batches(unobserved, tmp_path, observer, workers):
    alone = unobserved("drawing", workers)
    assert len(alone["batches"]) == 14
    assert different(alone, observed.watch_in_fork("drawing", observer, workers, tmp_path / "run")) == []


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("observer", ["light", "full", "everything"])
@pytest.mark.parametrize("target", ["normed", "embedding"])
def test_nor_with_buffers_persistent_workers_or_a_loader_of_its_own(unobserved, tmp_path, target, observer, workers):
    alone = unobserved(target, workers)
    assert different(alone, observed.watch_in_fork(target, observer, workers, tmp_path / "run")) == []


@pytest.mark.parametrize("workers", WORKERS)
def test_an_unobserved_run_repeats_itself(unobserved, tmp_path, workers):
    again = observed.watch_in_fork("drawing", "unobserved", workers, tmp_path / "run")
    assert different(unobserved("drawing", workers), again) == []


@pytest.mark.parametrize(
    ("observer", "workers", "changed"),
    [
        ("DrawsAtEnd", 0, {"streams at the end"}),
        ("DrawsNumpy", 0, {"streams at the end"}),
        ("DrawsTorch", 0, {"streams at the end"}),
        ("DrawsForLoader", 2, {"batches", "weights and buffers", "optimizer"}),
        ("TouchesBatch", 0, {"batches", "weights and buffers", "optimizer"}),
        ("TouchesMoment", 0, {"optimizer"}),
        ("TouchesWeight", 0, {"weights and buffers"}),
    ],
)
def test_an_observer_that_disturbs_is_seen(unobserved, tmp_path, observer, workers, changed):
    disturbed = observed.watch_in_fork("drawing", observer, workers, tmp_path / "run")
    found = set(different(unobserved("drawing", workers), disturbed))
    assert changed <= found
    if len(changed) == 1:
        # The evaluation after the last step sees a changed weight.
        assert found - {"logs"} == changed


@pytest.mark.parametrize("factory", ["build", "build_with_workers", "build_with_accumulation"])
def test_a_recorded_run_has_the_bits_of_an_unrecorded_one(workbench, tmp_path, factory):
    environment = None
    alone = subprocess.run(
        [sys.executable, "-c", SCRIPT, factory, str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    facts = json.loads(alone.stdout.strip().splitlines()[-1])
    recorded = workbench.reference_run(f"tests.targets.plain:{factory}")
    last = recorded.rows[recorded.last_step]
    assert last.state["weights"] == facts["weights"]
    content = [micro.batch.partition("#")[2] for step in recorded.steps for micro in recorded.rows[step].micro]
    assert content == [batch.partition("#")[2] for batch in facts["batches"]]
