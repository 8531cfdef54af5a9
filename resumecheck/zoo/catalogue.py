"""The list of specimens: for each family its defects, what they lose, how, and where such a bug was reported."""

from __future__ import annotations

from resumecheck.zoo.specimen import Specimen

STEPS = 12
#: Resume points: in the middle of the first epoch and in the middle of the second (an epoch has 7 steps).
MIDDLES = (4, 9)
SECOND_EPOCH = (9,)


def _specimen(
    family: str,
    name: str,
    component: str,
    mechanism: str,
    source: str,
    summary: str,
    *,
    also: tuple[str, ...] = (),
    at: tuple[int, ...] = MIDDLES,
    steps: int = STEPS,
) -> Specimen:
    build = f"resumecheck.zoo.{family}:{name}"
    return Specimen(name, component, mechanism, source, summary, build, f"{build}_twin", steps, at, also)


SPECIMENS: tuple[Specimen, ...] = (
    _specimen(
        "weights", "weights_under_other_names", "weights",
        "saved under other names, loaded with strict=False", "FlagEmbedding #1034",
        "the checkpoint's keys carry a wrapper's prefix, so that a lenient load restores nothing",
    ),
    _specimen(
        "weights", "one_weight_one_ulp_off", "weights",
        "a value changes on the way through the file", "own",
        "one weight comes back as the next float",
    ),
    _specimen(
        "weights", "buffer_not_persistent", "buffers",
        "a buffer that is not persistent", "own",
        "a running mean of the logits is registered with persistent=False",
    ),
    _specimen(
        "losses", "loss_parameter_outside_checkpoint", "loss-parameters",
        "a trained parameter outside the model", "sentence-transformers #27",
        "the temperature of the loss is trained, its moments are saved, it is not",
    ),
    _specimen(
        "optimizer", "moments_rounded_to_bf16", "optimizer-moments",
        "a value changes on the way through the file", "pytorch #43706",
        "the moments pass through bfloat16 on loading", also=("dtype",),
    ),
    _specimen(
        "scheduler", "scheduler_not_restored", "lr-scheduler",
        "built again and not loaded", "lightning #15462",
        "a new schedule is built after loading, so that warmup starts again",
    ),
    _specimen(
        "data", "global_random_in_data_set", "data-content",
        "the data set draws from a global stream", "transformers #46628",
        "one token of each row is masked with Python's global stream", also=("rng-python",),
    ),
    _specimen(
        "data", "sampler_starts_at_epoch_zero", "data-order",
        "the sampler counts its epochs itself", "ms-swift #10050",
        "the sampler shuffles by a count of its own, which is 0 in a new process", at=SECOND_EPOCH,
        also=("hidden-state",),
    ),
    _specimen(
        "hidden", "python_counter_in_model", "hidden-state",
        "a plain attribute", "own",
        "the model scales its loss by a count of its calls",
    ),
    _specimen(
        "saving", "saving_draws_from_torch_stream", "saving",
        "saving draws from a stream", "own",
        "each checkpoint is named by a number from torch's global stream",
    ),
)  # fmt: skip


def by_name(name: str) -> Specimen:
    """The specimen of that name; a KeyError says which name is not known."""
    for specimen in SPECIMENS:
        if specimen.name == name:
            return specimen
    raise KeyError(f"no specimen is called {name!r}")
