"""Two checkpoints value by value: equal to their copies, and the one value that is changed is the one that is named."""

import json
import shutil
from importlib.resources import files

import jsonschema
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import resumecheck
from tests.checkpoints import hostile

pytestmark = pytest.mark.slow  # each framework trains and writes its own checkpoint

SCHEMA = json.loads((files("resumecheck") / "schema" / "diff-1.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def valid(comparison):
    VALIDATOR.validate(json.loads(json.dumps(comparison.to_json(), allow_nan=False)))
    return comparison


WHERE = {"dcp": "", "accelerate": "", "lightning": "epoch=0-step=3.ckpt", "deepspeed": "global_step3"}


@pytest.fixture
def two(copy_of, tmp_path):
    """Two copies of a checkpoint."""

    def make(framework):
        where = WHERE.get(framework, "checkpoint-4")
        one = copy_of(framework) / where
        other = tmp_path / "other" / one.name
        (shutil.copytree if one.is_dir() else lambda a, b: (b.parent.mkdir(), shutil.copy(a, b)))(one, other)
        return one, other

    return make


@pytest.mark.parametrize("framework", ["transformers", "accelerate", "dcp", "lightning", "deepspeed"])
def test_a_checkpoint_equals_its_copy(framework, two):
    comparison = valid(resumecheck.diff(*two(framework)))
    assert comparison.equal
    assert comparison.differences == comparison.without_effect == ()
    assert comparison.compared > 0


def change_optimizer(path, change):
    state = torch.load(path / "optimizer.pt", weights_only=True)
    change(state)
    torch.save(state, path / "optimizer.pt")


def one_ulp(tensor):
    flat = tensor.reshape(-1)
    flat[1] = torch.nextafter(flat[1], torch.tensor(float("inf")))


def weights(path, change):
    from safetensors.torch import load_file, save_file

    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors")


CHECKPOINT_CHANGES = {
    "weights": lambda path: weights(path, lambda tensors: one_ulp(tensors["classifier.bias"])),
    "optimizer-moments": lambda path: change_optimizer(path, lambda state: one_ulp(state["state"][3]["exp_avg"])),
    "optimizer-step": lambda path: change_optimizer(path, lambda state: state["state"][3]["step"].add_(1)),
    "optimizer-hyperparameters": lambda path: change_optimizer(
        path, lambda state: state["param_groups"][0].update(lr=0.5)
    ),
    "lr-scheduler": lambda path: torch.save(
        {**torch.load(path / "scheduler.pt", weights_only=True), "last_epoch": 9}, path / "scheduler.pt"
    ),
    "counters": lambda path: (path / "trainer_state.json").write_text(
        (path / "trainer_state.json").read_text().replace('"max_steps": 6', '"max_steps": 7')
    ),
}


@pytest.mark.parametrize("component", CHECKPOINT_CHANGES)
def test_the_one_value_that_differs_is_the_one_that_is_named(component, two):
    one, other = two("transformers")
    CHECKPOINT_CHANGES[component](other)
    comparison = valid(resumecheck.diff(one, other))
    (found,) = comparison.differences
    assert (found.component, found.step, comparison.exit_status) == (component, 4, 1)
    if component in ("weights", "optimizer-moments"):
        assert found.max_ulp == 1
        assert found.max_abs > 0
        assert resumecheck.diff(one, other, tolerance="ulp:1").equal
        assert not resumecheck.diff(one, other, tolerance="ulp:0").equal


def test_a_random_stream_that_differs_is_named_and_no_other(two):
    from transformers.trainer import safe_globals

    one, other = two("transformers")
    with safe_globals():
        state = torch.load(other / "rng_state.pth", weights_only=True)
    state["cpu"][10] += 1
    torch.save(state, other / "rng_state.pth")
    comparison = resumecheck.diff(one, other)
    assert {found.component for found in comparison.differences} == {"rng-torch"}


def test_another_data_type_is_named_as_such(two):
    one, other = two("transformers")
    weights(other, lambda tensors: tensors.update({"classifier.bias": tensors["classifier.bias"].double()}))
    (found,) = resumecheck.diff(one, other).differences
    assert (found.component, found.name) == ("dtype", "classifier.bias")


def test_weights_are_compared_by_name_whatever_the_files(two):
    one, other = two("transformers")
    from safetensors.torch import load_file

    torch.save(load_file(other / "model.safetensors"), other / "pytorch_model.bin")
    (other / "model.safetensors").unlink()
    assert resumecheck.diff(one, other).equal


def test_a_file_that_one_of_them_lacks_is_a_difference(two):
    one, other = two("transformers")
    (other / "scheduler.pt").unlink()
    comparison = resumecheck.diff(one, other)
    assert {(found.component, found.got) for found in comparison.differences} == {("lr-scheduler", "missing")}


def test_code_in_a_checkpoint_is_not_run_by_a_comparison(two, tmp_path):
    one, other = two("transformers")
    hostile.pickle_with_code(other / "optimizer.pt", tmp_path / "made by the pickle")
    comparison = resumecheck.diff(one, other)
    assert not comparison.equal
    assert any("would run code" in note for note in comparison.notes)
    assert not (tmp_path / "made by the pickle").exists()


@pytest.mark.parametrize("make", [hostile.doubling_pickle, hostile.nested_pickle, hostile.pipe, hostile.zip_bomb])
def test_a_hostile_file_is_compared_by_its_bytes(make, two):
    one, other = two("transformers")
    (other / "optimizer.pt").unlink()
    make(other / "optimizer.pt")
    comparison = resumecheck.diff(one, other)
    assert any("optimizer.pt" in note and "by its bytes" in note for note in comparison.notes)


def test_a_tensor_that_is_larger_than_its_storage_is_not_spread_out(two):
    one, other = two("transformers")
    change_optimizer(other, lambda state: state["state"][3].update(exp_avg=torch.zeros(1).expand(1 << 40)))
    comparison = resumecheck.diff(one, other)
    assert not comparison.equal
    assert any("larger than what is stored" in note for note in comparison.notes)


def test_single_files_are_compared_too(two):
    one, other = two("transformers")
    weights(other, lambda tensors: one_ulp(tensors["classifier.bias"]))
    comparison = resumecheck.diff(one / "model.safetensors", other / "model.safetensors")
    assert [found.name for found in comparison.differences] == ["classifier.bias[1]"]


def test_damage_at_random_is_a_difference_and_never_raises(two):
    one, other = two("transformers")
    names = ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(names), st.floats(0, 1), st.binary(min_size=1, max_size=4))
    def damage(name, part, put):
        good = (other / name).read_bytes()
        place = int(part * (len(good) - 8))
        bad = good[:place] + put + good[place + len(put) :]
        try:
            (other / name).write_bytes(bad)
            resumecheck.diff(one, other).to_json()
            (other / name).write_bytes(good[:place])
            assert not resumecheck.diff(one, other).equal
        finally:
            (other / name).write_bytes(good)

    damage()
