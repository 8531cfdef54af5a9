"""Scripts as users write them, right and with a mistake, judged from the shell: what is lost is named, and no more.

`make test` takes a few; `RESUMECHECK_MATRIX=1` takes all.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from resumecheck.checkpoints.values import read_file_values
from resumecheck.compare.checkpoint_files import compare_outputs

SCRIPTS = Path(__file__).parent / "targets" / "scripts"
#: Script -> the options of the check, and the words of the script.
CALLS = {
    "whole_state": ("--at 4 --checkpoint epoch_*.pth --resume-option", "--resume {checkpoint}", "--workdir"),
    "many_files": ("--at 5 --checkpoint step00{step} --resume-option", "--resume ", "--out"),
    "with_accelerate": ("--at 6 --resume-option", "--resume_from_checkpoint {checkpoint}", "--out"),
    "with_lightning": ("--at 4 --checkpoint at-step={step}.ckpt --resume-option", "--ckpt {checkpoint}", "--dir"),
}
SKIPS = "skip_first_batches(loader, passed) if passed else loader"
RANDOM = '    random.setstate((facts["random"][0], tuple(facts["random"][1]), facts["random"][2]))\n'
#: script, what is lost -> the text that the mistake replaces, what stands there instead, and what is found.
MISTAKES = {
    ("whole_state", "moving average"): ('    ema.load_state_dict(saved["ema"])\n', "", "weights"),
    ("whole_state", "scaler"): ('    scaler.load_state_dict(saved["scaler"])\n', "", "grad-scaler"),
    ("whole_state", "torch's stream"): ('    torch.set_rng_state(saved["torch_rng"])\n', "", "rng-torch"),
    ("whole_state", "Python's stream"): ('    random.setstate(saved["py_rng"])\n', "", "rng-python"),
    ("whole_state", "optimizer"): ('    optimizer.load_state_dict(saved["optimizer"])\n', "", "optimizer-moments"),
    ("whole_state", "weights"): ('    model.load_state_dict(saved["model"])\n', "", "weights"),
    ("whole_state", "buffers"): (
        'model.load_state_dict(saved["model"])',
        'model.load_state_dict({k: v for k, v in saved["model"].items() if "running" not in k}, strict=False)',
        "buffers",
    ),
    ("whole_state", "epoch"): ('first, history = saved["epoch"], saved', "history = saved", "counters"),
    ("many_files", "Python's stream"): (RANDOM, "", "rng-python"),
    ("many_files", "optimizer"): (
        '    optimizer.load_state_dict(torch.load(os.path.join(folder, "opt.pt")))\n',
        "",
        "optimizer-moments",
    ),
    ("many_files", "step"): ('step, best = facts["step"], facts["best"]', 'best = facts["best"]', "lr-scheduler"),
    ("with_accelerate", "position"): (SKIPS, "loader", "data-position"),
    ("with_accelerate", "epoch of the order"): ("    order.manual_seed(epoch)\n", "", "data-position"),
    ("with_lightning", "order"): ("sampler=order", "shuffle=True", "data-position"),
    ("with_lightning", "optimizer"): ("save_top_k=-1", "save_top_k=-1, save_weights_only=True", "resume-failure"),
}
FEW = {("whole_state", "moving average")}
EVERY = bool(os.environ.get("RESUMECHECK_MATRIX"))


def judged(script, text, directory):
    """Exit status and verdict of a check from the shell."""
    (directory / "script.py").write_text(text)
    options, resume, out = CALLS[script]
    words = [*options.split(), resume, "--", sys.executable, str(directory / "script.py"), out, "{out}"]
    file = directory / "verdict.json"
    command = [sys.executable, "-m", "resumecheck", "verify", "--json", str(file), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert file.exists(), done.stdout + done.stderr
    return done.returncode, json.loads(file.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("script", CALLS if EVERY else ["whole_state"])
def test_a_script_that_loses_nothing_is_left_alone(tmp_path, script):
    status, verdict = judged(script, (SCRIPTS / f"{script}.py").read_text(), tmp_path)
    assert (status, verdict["verdict"]) == (0, "equivalent"), verdict
    # Neither the times, paths and process numbers that it writes, nor that it was told where to go on from.
    assert [point["latent"] for point in verdict["resume_points"]] == [[]]


@pytest.mark.slow
@pytest.mark.parametrize(("script", "lost"), [case for case in MISTAKES if EVERY or case in FEW])
def test_what_a_script_loses_is_named(tmp_path, script, lost):
    line, instead, component = MISTAKES[script, lost]
    text = (SCRIPTS / f"{script}.py").read_text()
    assert line in text
    status, verdict = judged(script, text.replace(line, instead), tmp_path)
    (point,) = verdict["resume_points"]
    assert (status, point["verdict"]) == (1, "diverged")
    assert point["findings"][0]["component"] == component, point["findings"]


# --- the files of two runs ----------------------------------------------------------------------------------------


def saved(directory, **changes):
    """A directory with a file as scripts write them."""
    import argparse

    import torch

    directory.mkdir()
    state = {"model": {"w": torch.ones(2)}, "step": 4, "at": 1.5, "args": argparse.Namespace(lr=0.1, resume=None)}
    torch.save(state | changes, directory / "state.pt")
    return directory


def test_a_file_with_arguments_is_read_value_by_value(tmp_path):
    names = {name for _, _, name in read_file_values(saved(tmp_path / "one") / "state.pt")}
    assert {"model.w", "step", "at", "args.lr", "args.resume"} == names


def test_what_two_runs_do_not_agree_on_hides_nothing_else_in_the_file(tmp_path):
    import torch

    one, again = saved(tmp_path / "one"), saved(tmp_path / "again", at=2.5)
    noise = {place for each in compare_outputs(one, again) for place in each.places}
    assert noise == {("state.pt", "counters", "at")}
    assert compare_outputs(one, saved(tmp_path / "resumed", at=3.5), noise=noise) == []
    other = saved(tmp_path / "other", at=3.5, model={"w": torch.zeros(2)})
    (found,) = compare_outputs(one, other, noise=noise)
    assert (found.component, found.name) == ("weights", "model.w")


def test_the_path_that_a_resumed_run_was_given_is_no_difference(tmp_path):
    import argparse

    one = saved(tmp_path / "one")
    other = saved(tmp_path / "other", args=argparse.Namespace(lr=0.1, resume="/out/state-4.pt"))
    assert compare_outputs(one, other, told={"/out/state-4.pt"}) == []
    (found,) = compare_outputs(one, other)
    assert found.name == "args.resume"


def test_code_in_a_file_is_not_run(tmp_path):
    import pickle

    class Touches:
        def __reduce__(self):
            return Path.touch, (tmp_path / "touched",)

    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.pkl").write_bytes(pickle.dumps([Touches(), name]))
    (found,) = compare_outputs(tmp_path / "one", tmp_path / "other")
    assert "bytes#" in found.got
    assert not (tmp_path / "touched").exists()
