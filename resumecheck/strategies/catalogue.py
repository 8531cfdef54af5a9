"""The mutations by name: where their Trainer class is, and what a set-up needs to show them."""

from __future__ import annotations

import dataclasses
from typing import Any

_HERE = "resumecheck.strategies.mutations"
_ZOO = "resumecheck.zoo"


@dataclasses.dataclass(frozen=True)
class Mutation:
    """One defect.

    Attributes:
        trainer: import path of the Trainer class that has it.
        needs: fields of a set-up and the values of which one is needed for the defect to show. It may still not show
            (a schedule that was lost and is constant); a set-up without them shows that the check then says so.
    """

    trainer: str
    needs: dict[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)


_DROPOUT = {"dropout": (0.1, 0.5)}
_MOVING = {"scheduler": ("linear", "cosine", "polynomial", "inverse_sqrt", "cosine_with_restarts")}
_WINDOWS = {"accumulation": (2, 3)}
_MOMENTS = {"optimizer": ("adamw", "momentum", "amsgrad", "adamax", "nadam", "radam", "adagrad", "rmsprop")}
_STEPS = {"optimizer": ("adamw", "amsgrad", "adamax", "nadam", "radam")}

MUTATIONS: dict[str, Mutation] = {
    # the optimizer
    "optimizer_not_restored": Mutation(f"{_HERE}:DropsTheOptimizer", _MOMENTS),
    "optimizer_state_of_one_parameter_missing": Mutation(f"{_HERE}:DropsOneParameter", _MOMENTS),
    "moments_zeroed": Mutation(f"{_HERE}:ZeroesMoments", _MOMENTS),
    "moments_rounded": Mutation(f"{_HERE}:RoundsMoments", _MOMENTS | {"precision": ("float32", "float64")}),
    "moment_off_by_one_ulp": Mutation(f"{_HERE}:MovesAMomentByOneUlp", _MOMENTS),
    "optimizer_steps_start_at_zero": Mutation(f"{_HERE}:StartsStepsAtZero", _STEPS),
    "rate_taken_from_arguments": Mutation(f"{_HERE}:TakesRateFromArguments", _MOVING),
    # weights and buffers
    "weights_rounded": Mutation(f"{_HERE}:RoundsWeights", {"precision": ("float32", "float64", "autocast")}),
    "weight_off_by_one_ulp": Mutation(f"{_HERE}:MovesAWeightByOneUlp"),
    "tensor_missing_in_checkpoint": Mutation(f"{_HERE}:MissesATensor"),
    "buffers_not_restored": Mutation(f"{_HERE}:LosesBuffers", {"norm": ("batch",)}),
    "parameter_frozen_after_loading": Mutation(f"{_HERE}:FreezesAfterLoading"),
    # the schedule
    "scheduler_not_restored": Mutation(f"{_ZOO}.scheduler:StartsItsScheduleAgain", _MOVING),
    "schedule_stepped_twice": Mutation(f"{_ZOO}.scheduler:StepsItsScheduleOnLoading", _MOVING),
    "schedule_counts_micro_batches": Mutation(f"{_ZOO}.scheduler:CountsInMicroBatches", _MOVING | _WINDOWS),
    "schedule_over_what_remains": Mutation(f"{_ZOO}.scheduler:DecaysOverWhatRemains", _MOVING),
    # random streams
    "python_stream_not_restored": Mutation(f"{_ZOO}.streams:RestoresNoPython", {"draws": ("python",)}),
    "numpy_stream_not_restored": Mutation(f"{_ZOO}.streams:RestoresNoNumpy", {"draws": ("numpy",)}),
    "torch_stream_not_restored": Mutation(f"{_ZOO}.streams:RestoresNoTorch", _DROPOUT),
    "streams_seeded_after_restoring": Mutation(f"{_ZOO}.streams:SeedsAfterRestoring", _DROPOUT),
    "stream_drawn_from_after_restoring": Mutation(f"{_ZOO}.streams:DrawsAfterRestoring", _DROPOUT),
    "stream_of_another_rank": Mutation(f"{_ZOO}.streams:RestoresAnotherRank", _DROPOUT),
    # data
    "one_batch_replayed": Mutation(f"{_ZOO}.position:ReplaysABatch", {"rows": (12, 17, 24)}),
    "skip_counts_optimizer_steps": Mutation(f"{_ZOO}.position:SkipsSteps", _WINDOWS | {"rows": (12, 17, 24)}),
    "sampler_counts_its_passes": Mutation(f"{_HERE}:SamplesByPasses", {"rows": (5, 8)}),
    "dataset_counts_reads": Mutation(f"{_HERE}:ReadsACountingDataset"),
    "private_generator_in_collator": Mutation(f"{_HERE}:CollatesWithNoise"),
    # counters
    "step_lost": Mutation(f"{_ZOO}.counters:LosesTheStep"),
    "stops_at_what_was_left": Mutation(f"{_ZOO}.counters:TrainsWhatRemains"),
    # state that no checkpoint holds
    "counter_in_trainer": Mutation(f"{_HERE}:CountsInTheTrainer"),
    "counter_in_model": Mutation(f"{_HERE}:CountsInTheModel"),
    "counter_in_class": Mutation(f"{_HERE}:CountsInTheClass"),
    "counter_in_global": Mutation(f"{_HERE}:CountsInAGlobal"),
    "counter_in_closure": Mutation(f"{_HERE}:CountsInAClosure"),
    "counter_in_callback": Mutation(f"{_HERE}:CountsInACallback"),
    "counter_for_display": Mutation(f"{_HERE}:CountsForDisplay"),
    "running_mean_of_loss": Mutation(f"{_HERE}:DividesByARunningMean"),
    "average_of_weights_lost": Mutation(f"{_HERE}:PullsTowardsAnAverage"),
    "private_generator_of_loss": Mutation(f"{_HERE}:DrawsFromItsOwn"),
    # other arguments in the resumed run
    "other_rate": Mutation(f"{_HERE}:ChangesTheRate"),
    "other_clipping": Mutation(f"{_HERE}:ChangesClipping"),
    "other_batch_size": Mutation(f"{_HERE}:ChangesTheBatchSize"),
    "other_accumulation": Mutation(f"{_HERE}:ChangesAccumulation"),
    "other_seed": Mutation(f"{_HERE}:ChangesTheSeed"),
    "other_dropout": Mutation(f"{_HERE}:ChangesDropout", _DROPOUT),
    "data_not_skipped": Mutation(f"{_HERE}:SkipsNoData", {"rows": (12, 17, 24)}),
    # saving
    "saving_draws_from_torch_stream": Mutation(f"{_ZOO}.saving:DrawsWhenSaving", _DROPOUT),
    "saving_rounds_weights": Mutation(f"{_HERE}:RoundsWhenSaving", {"precision": ("float32", "float64", "autocast")}),
}
