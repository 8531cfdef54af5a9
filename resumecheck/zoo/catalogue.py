"""The list of specimens: for each family its defects, what they lose, how, and where such a bug was reported."""

from __future__ import annotations

from resumecheck.zoo.specimen import Specimen

STEPS = 12
#: Resume points: in the middle of the first epoch and in the middle of the second (an epoch has 7 steps).
MIDDLES = (4, 9)
FIRST_EPOCH = (4,)
SECOND_EPOCH = (9,)


def _specimen(
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
    family, _, name = name.partition(".")
    build = f"resumecheck.zoo.{family}:{name}"
    return Specimen(name, component, mechanism, source, summary, build, f"{build}_twin", steps, at, also)


SPECIMENS: tuple[Specimen, ...] = (
    _specimen("weights.weights_under_other_names", "weights", "saved under other names", "FlagEmbedding #1034",
        "the checkpoint's keys carry a wrapper's prefix, so that a load with strict=False restores nothing"),
    _specimen("weights.one_weight_one_ulp_off", "weights", "a value is rounded or moved", "own",
        "one weight comes back as the next float"),
    _specimen("weights.weights_not_loaded", "weights", "not loaded", "transformers #9818",
        "optimizer and schedule are restored, the model is not"),
    _specimen("weights.weights_saved_in_bf16", "weights", "a value is rounded or moved", "OpenTau #185",
        "float32 weights are saved in bfloat16", also=("dtype",)),
    _specimen("weights.head_initialised_again", "weights", "initialised again after loading", "lerobot #3459",
        "a fresh head is put on the loaded model"),
    _specimen("weights.layers_exchanged", "weights", "restored to another parameter", "own",
        "two layers of one shape are loaded into each other's place"),
    _specimen("weights.weights_one_step_behind", "weights", "saved from another moment", "own",
        "the file is written from a copy of the weights that was made before the last step"),

    _specimen("buffers.buffer_not_persistent", "buffers", "a buffer that is not persistent", "own",
        "a running mean of the logits is registered with persistent=False"),
    _specimen("buffers.only_parameters_saved", "buffers", "left out of the file", "own",
        "what is saved is collected from named_parameters, so that buffers are missing"),
    _specimen("buffers.double_buffer_saved_in_float32", "buffers", "a value is rounded or moved", "own",
        "a float64 buffer passes through float32 in the file", also=("dtype",)),
    _specimen("buffers.queue_without_its_place", "hidden-state", "a plain attribute", "own",
        "a queue of earlier logits is a buffer, the place in it is a Python number", also=("buffers",)),
    _specimen("buffers.ema_updates_as_number", "hidden-state", "a plain attribute", "lightly-train #892",
        "the decay of a running mean depends on a count of updates that is a Python number", also=("buffers",)),

    _specimen("losses.loss_parameter_outside_checkpoint", "loss-parameters", "a trained parameter outside the model",
        "sentence-transformers #27", "the temperature of the loss is trained, its moments are saved, it is not"),
    _specimen("losses.loss_loaded_into_another_object", "loss-parameters", "another object than the one that trains",
        "sentence-transformers #2648", "the loss is loaded into a new object, the optimizer holds the old parameters",
        also=("optimizer-hyperparameters",)),
    _specimen("losses.loss_buffer_outside_checkpoint", "hidden-state", "a buffer outside the model", "own",
        "the loss counts the classes that it has seen in a buffer of its own", also=("buffers", "loss-parameters")),

    _specimen("dtypes.resumed_in_bf16", "dtype", "trained on in another type", "OpenTau #185",
        "the model is loaded into bfloat16 and trained on in it", also=("weights",)),
    _specimen("dtypes.momentum_cast_to_parameter_type", "dtype", "a value is rounded or moved", "pytorch #43706",
        "torch casts float32 momentum of bfloat16 parameters to bfloat16 on loading", also=("optimizer-moments",)),
    _specimen("dtypes.autocast_only_at_the_start", "hidden-state", "a switch that only step 0 sets", "own",
        "autocast is switched on where training starts at step 0", also=("dtype",)),

    _specimen("identity.loss_holds_the_old_model", "weights", "another object than the one that trains",
        "sentence-transformers #2648", "loading puts a new model in place, and the loss keeps the old one",
        also=("hidden-state",)),
    _specimen("identity.weights_untied", "weights", "sharing is lost", "transformers #38870",
        "the output layer comes back with a copy of the embedding that it shared",
        also=("optimizer-hyperparameters", "hidden-state")),
    _specimen("identity.layer_replaced_after_the_optimizer", "weights", "another object than the one that trains",
        "own", "a layer is replaced by an equal one that the optimizer does not hold",
        also=("optimizer-hyperparameters",)),
    _specimen("identity.parameters_missing_from_optimizer", "optimizer-hyperparameters", "left out of the optimizer",
        "own", "after a resume the optimizer's groups lack the norms", also=("optimizer-moments", "weights")),
    _specimen("identity.trained_model_is_not_the_saved_one", "weights", "another object than the one that trains",
        "own", "trainer.model is a copy of the model that the loop trains", also=("optimizer-hyperparameters",)),

    _specimen("optimizer.moments_rounded_to_bf16", "optimizer-moments", "a value is rounded or moved", "pytorch #43706",
        "the moments pass through bfloat16 on loading", also=("dtype",)),
    _specimen("optimizer.second_moments_cleared", "optimizer-moments", "not loaded", "DeepSpeed #120",
        "the second moments start at zero again"),
    _specimen("optimizer.sgd_momentum_cleared", "optimizer-moments", "not loaded", "Megatron-Bridge #3832",
        "the momentum of SGD starts at zero again"),
    _specimen("optimizer.adafactor_rows_cleared", "optimizer-moments", "not loaded", "own",
        "the row factors of Adafactor start at zero again"),
    _specimen("optimizer.amsgrad_maxima_not_restored", "optimizer-moments", "left out of the file", "own",
        "the maxima of AMSGrad are filled in from the second moments"),
    _specimen("optimizer.moments_transposed", "optimizer-moments", "restored to another place", "flashoptim #3",
        "the moments of square matrices come back with their axes exchanged"),
    _specimen("optimizer.moments_of_one_rank", "optimizer-moments", "left out of the file", "transformers #23034",
        "only the state of every second parameter is loaded", also=("optimizer-step", "checkpoint-files")),
    _specimen("optimizer.moments_matched_by_position", "optimizer-moments", "restored to another place",
        "pytorch #1489", "moments are saved by name and loaded by position, where the shapes fit"),
    _specimen("optimizer.optimizer_steps_start_at_zero", "optimizer-step", "starts again", "DeepSpeed #4396",
        "the step that bias correction uses starts at zero again"),
    _specimen("optimizer.optimizer_steps_rounded_to_bf16", "optimizer-step", "a value is rounded or moved",
        "pytorch #75214", "a step near 10000 passes through bfloat16", also=("dtype",)),

    _specimen("groups.rate_of_groups_reset", "optimizer-hyperparameters", "made again after loading", "pytorch #119168",
        "the schedule is made after the optimizer was loaded, and sets the rate of step 0", also=("lr-scheduler",)),
    _specimen("groups.weight_decay_from_arguments", "optimizer-hyperparameters", "taken from the arguments again",
        "own", "a callback raises the weight decay, a resume takes it from the arguments"),
    _specimen("groups.group_options_not_restored", "optimizer-hyperparameters", "not loaded", "own",
        "the state of parameters is loaded, the options of their groups are not"),
    _specimen("groups.groups_in_another_order", "optimizer-moments", "restored to another place", "own",
        "two groups of one size are loaded into each other's place", also=("optimizer-hyperparameters",)),

    _specimen("shadows.slow_weights_in_attribute", "hidden-state", "a plain attribute", "own",
        "an optimizer keeps slow weights in an attribute instead of its state", also=("optimizer-moments",)),
    _specimen("shadows.masters_of_a_fresh_model", "hidden-state", "a copy made from other weights", "DeepSpeed #762",
        "float32 masters are copies of the initial weights, and write over the loaded ones",
        also=("weights", "optimizer-moments")),
    _specimen("shadows.teacher_copied_when_training_starts", "hidden-state", "a copy made from other weights", "own",
        "the model that the loss stays near is copied when training starts, after a resume from loaded weights"),

    _specimen("scheduler.scheduler_not_restored", "lr-scheduler", "made again after loading", "lightning #15462",
        "a new schedule is made after loading, so that warmup starts again"),
    _specimen("scheduler.schedule_stepped_twice", "lr-scheduler", "advanced on loading", "slime #1547",
        "the schedule makes one step on loading"),
    _specimen("scheduler.schedule_counts_micro_batches", "lr-scheduler", "counted in another unit", "sd-scripts #2425",
        "the schedule's place is multiplied by the accumulation"),
    _specimen("scheduler.schedule_over_what_remains", "lr-scheduler", "made from another length", "transformers #18070",
        "the schedule is made over the steps that are left", also=("hidden-state",)),
    _specimen("scheduler.schedule_moves_another_optimizer", "lr-scheduler", "another object than the one that trains",
        "gpt-neox #1029", "the schedule goes on to move the groups of an optimizer that no longer trains"),
    _specimen("scheduler.schedule_closure_not_restored", "lr-scheduler", "a closure", "pytorch #52911",
        "the factor of a LambdaLR lives in a closure", also=("hidden-state",)),
    _specimen("scheduler.warm_restart_loses_its_place", "lr-scheduler", "starts again", "pytorch #49630",
        "the place in the period of a cosine with warm restarts is lost"),
    _specimen("scheduler.parts_of_a_schedule_not_restored", "lr-scheduler", "left out of the file", "pytorch #162591",
        "the parts of a sequence of schedules start again, the sequence does not"),
    _specimen("scheduler.plateau_count_not_restored", "lr-scheduler", "starts again", "timm #2756",
        "the count of bad evaluations is lost, so that the rate falls later"),

    _specimen("scaler.scaler_not_restored", "grad-scaler", "not loaded", "transformers #34053",
        "the scale starts high again, two steps overflow and are left out"),
    _specimen("scaler.scaler_growth_count_not_restored", "grad-scaler", "starts again", "transformers #11663",
        "the count of good steps is lost, so that the scale grows later", at=(4, 8)),
    _specimen("scaler.first_step_counts_as_skipped", "grad-scaler", "a flag that is left set", "transformers #34053",
        "the first resumed step counts as skipped, and the schedule lags by one",
        also=("lr-scheduler", "hidden-state")),
    _specimen("scaler.scale_of_the_loss_as_number", "hidden-state", "a plain attribute", "own",
        "a growing scale of the loss is a Python number", also=("grad-scaler",)),

    _specimen("accumulation.gathered_gradients_lost", "gradient-accumulation", "gradients between two steps",
        "transformers #22143", "gradients gathered over three steps are lost in the middle of the window", at=(4, 8)),
    _specimen("accumulation.place_in_the_window_lost", "gradient-accumulation", "a plain attribute", "transgenic #53",
        "the place in a window of three steps starts at 0 again", at=(4, 8), also=("hidden-state",)),
    _specimen("accumulation.errors_of_rounding_lost", "hidden-state", "a dictionary", "own",
        "errors of rounded gradients are fed back from a dictionary of the trainer", also=("gradient-accumulation",)),

    _specimen("data.global_random_in_data_set", "data-content", "the data draws from a global stream",
        "transformers #46628", "one token of each row is masked with Python's global stream", also=("rng-python",)),
    _specimen("data.sampler_starts_at_epoch_zero", "data-order", "the sampler counts its epochs itself",
        "ms-swift #10050", "the sampler shuffles by a count of its own, which is 0 in a new process",
        at=SECOND_EPOCH, also=("hidden-state",)),

    _specimen("hidden.python_counter_in_model", "hidden-state", "a plain attribute", "own",
        "the model scales its loss by a count of its calls"),

    _specimen("saving.saving_draws_from_torch_stream", "saving", "saving draws from a stream", "own",
        "each checkpoint is named by a number from torch's global stream"),
)  # fmt: skip


def by_name(name: str) -> Specimen:
    """The specimen of that name; a KeyError says which name is not known."""
    for specimen in SPECIMENS:
        if specimen.name == name:
            return specimen
    raise KeyError(f"no specimen is called {name!r}")
