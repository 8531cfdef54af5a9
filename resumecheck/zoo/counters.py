"""Counts of the trainer that start again or come back changed."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

from typing import Any

from transformers import EarlyStoppingCallback, Trainer

from resumecheck.zoo.setups import FewRows, TinyTrainer, make_trainer


class ChangesCounters(TinyTrainer):
    """Changes the trainer's state after it was loaded; what is changed is up to `change`."""

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        epochs, batches = super()._init_training_state(*args, **kwargs)
        if self.state.global_step:
            self.change()
        return epochs, batches

    def change(self) -> None:
        """Change the loaded state."""


class WeighsByTokens(ChangesCounters):
    """Lets the loss fall with the tokens that were seen."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(*args, **kwargs) / (1 + self.state.num_input_tokens_seen / 480)


class CountsTokensAgain(WeighsByTokens):
    """Counts tokens from zero after a resume."""

    def change(self) -> None:
        self.state.num_input_tokens_seen = 0


def tokens_counted_again(output_dir: str) -> Trainer:
    return make_trainer(output_dir, CountsTokensAgain, include_num_input_tokens_seen="all")


def tokens_counted_again_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, WeighsByTokens, include_num_input_tokens_seen="all")


class WeighsByEpoch(ChangesCounters):
    """Lets the loss rise with the epoch, which is a fraction."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(*args, **kwargs) * (1 + (self.state.epoch or 0))


class RoundsTheEpoch(WeighsByEpoch):
    """Rounds the epoch on loading."""

    def change(self) -> None:
        self.state.epoch = int(self.state.epoch or 0)


def epoch_rounded(output_dir: str) -> Trainer:
    return make_trainer(output_dir, RoundsTheEpoch)


def epoch_rounded_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, WeighsByEpoch)


class TrainsWhatRemains(ChangesCounters):
    """Stops after as many steps as were left, counted from the start."""

    def change(self) -> None:
        self.left = self.state.max_steps - self.state.global_step

    def _prepare_for_training(self, max_steps: int, *args: Any, **kwargs: Any) -> Any:
        self.state.max_steps = getattr(self, "left", max_steps)
        return super()._prepare_for_training(max_steps, *args, **kwargs)


def stops_at_what_was_left(output_dir: str) -> Trainer:
    return make_trainer(output_dir, TrainsWhatRemains)


def stops_at_what_was_left_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ChangesCounters, max_steps=-1, num_train_epochs=12 / 7)


class LosesTheStep(TinyTrainer):
    """Reads the step under a misspelt name, and finds 0."""

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        super()._init_training_state(*args, **kwargs)
        self.state.global_step = getattr(self.state, "global_steps", 0)
        return 0, 0


class ReadsTheStep(TinyTrainer):
    """Counts its steps under another name too, which nothing reads."""

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        found = super()._init_training_state(*args, **kwargs)
        self.steps_in_this_process = 0
        return found

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        self.steps_in_this_process += 1
        return super().training_step(*args, **kwargs)


def step_lost_by_a_typo(output_dir: str) -> Trainer:
    return make_trainer(output_dir, LosesTheStep)


def step_lost_by_a_typo_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ReadsTheStep)


class ForgetsTheBest(ChangesCounters):
    """Forgets the best metric on loading, so that the next evaluation counts as an improvement."""

    def change(self) -> None:
        self.state.best_metric = None


def _stopping_early(output_dir: str, trainer: type[Trainer]) -> Trainer:
    return make_trainer(
        output_dir,
        trainer,
        eval_rows=FewRows(),
        metrics=_flat,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=8)],
        metric_for_best_model="eval_flat",
        greater_is_better=True,
        eval_strategy="steps",
        eval_steps=1,
        restore_callback_states_from_checkpoint=True,
    )


def _flat(prediction: Any) -> dict[str, float]:
    return {"flat": 1.0}


def best_metric_forgotten(output_dir: str) -> Trainer:
    return _stopping_early(output_dir, ForgetsTheBest)


def best_metric_forgotten_twin(output_dir: str) -> Trainer:
    return _stopping_early(output_dir, ChangesCounters)
