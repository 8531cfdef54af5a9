"""The observer changes nothing: a recorded run has the same bits as the target trained by a script of its own."""

import json
import subprocess
import sys

import pytest

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
