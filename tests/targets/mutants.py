"""Ten ways to lose state over a resume, each as a small difference on the base set-up, each with its clean twin.

`NAME` is the mutant, `NAME_twin` the same set-up with the state kept as it should be.
"""

import json
import random
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification, Trainer

from tests.targets.plain import ROWS, Rows, make_model, make_trainer

# --- the schedule is not restored ---


class ScheduleStartsAgain(Trainer):
    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.lr_scheduler = None
            self.create_scheduler(self.state.max_steps)


class ScheduleIsRebuiltAndLoaded(ScheduleStartsAgain):
    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            state = torch.load(Path(checkpoint) / "optimizer.pt", weights_only=True)
            self.optimizer.load_state_dict(state)
            self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / "scheduler.pt", weights_only=True))


def scheduler_not_restored(output_dir):
    return make_trainer(output_dir, ScheduleStartsAgain)


def scheduler_not_restored_twin(output_dir):
    return make_trainer(output_dir, ScheduleIsRebuiltAndLoaded)


# --- moments are rounded ---


class MomentsRounded(Trainer):
    through = torch.bfloat16

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            for state in self.optimizer.state.values():
                for name in ("exp_avg", "exp_avg_sq"):
                    state[name] = state[name].to(self.through).to(torch.float32)


class MomentsThroughDouble(MomentsRounded):
    through = torch.float64


def moments_rounded(output_dir):
    return make_trainer(output_dir, MomentsRounded)


def moments_rounded_twin(output_dir):
    return make_trainer(output_dir, MomentsThroughDouble)


# --- weights are saved under other names ---


class SavesUnderOtherNames(Trainer):
    known_names = False

    def _save(self, output_dir=None, state_dict=None):
        super()._save(output_dir, state_dict)
        file = Path(output_dir or self.args.output_dir) / "model.safetensors"
        tensors = {f"encoder.{name}": tensor for name, tensor in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})

    def _load_from_checkpoint(self, checkpoint, model=None):
        tensors = load_file(Path(checkpoint) / "model.safetensors")
        if self.known_names:
            tensors = {name.removeprefix("encoder."): tensor for name, tensor in tensors.items()}
        self.model.load_state_dict(tensors, strict=False)


class LoadsUnderTheSavedNames(SavesUnderOtherNames):
    known_names = True


def other_names(output_dir):
    return make_trainer(output_dir, SavesUnderOtherNames)


def other_names_twin(output_dir):
    return make_trainer(output_dir, LoadsUnderTheSavedNames)


# --- a parameter of the loss is outside the checkpoint ---


class LearnsTemperature(Trainer):
    saves = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.temperature = torch.nn.Parameter(torch.tensor(0.5))

    def create_optimizer(self, model=None):
        optimizer = super().create_optimizer() if model is None else super().create_optimizer(model)
        if all(self.temperature is not held for group in optimizer.param_groups for held in group["params"]):
            optimizer.add_param_group({"params": [self.temperature], "weight_decay": 0.0, "lr": 0.01})
        return optimizer

    def training_step(self, *args, **kwargs):
        self.temperature.grad = None
        return super().training_step(*args, **kwargs)

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        outputs = model(**inputs)
        loss = torch.nn.functional.cross_entropy(outputs.logits * self.temperature.exp(), inputs["labels"])
        return (loss, outputs) if return_outputs else loss


class LearnsAndSavesTemperature(LearnsTemperature):
    def _save(self, output_dir=None, state_dict=None):
        super()._save(output_dir, state_dict)
        save_file({"temperature": self.temperature.detach().reshape(1)}, Path(output_dir) / "loss.safetensors")

    def _load_from_checkpoint(self, checkpoint, model=None):
        super()._load_from_checkpoint(checkpoint, model)
        with torch.no_grad():
            self.temperature.copy_(load_file(Path(checkpoint) / "loss.safetensors")["temperature"][0])


def loss_parameter(output_dir):
    return make_trainer(output_dir, LearnsTemperature)


def loss_parameter_twin(output_dir):
    return make_trainer(output_dir, LearnsAndSavesTemperature)


# --- the data set draws from a global stream ---


class MasksAtRandom(Rows):
    def generator(self, index):
        return random

    def __getitem__(self, index):
        row = super().__getitem__(index)
        row["input_ids"][self.generator(index).randrange(12)] = 3
        return row


class MasksByIndex(MasksAtRandom):
    def generator(self, index):
        return random.Random(index)


def global_random_in_data(output_dir):
    return make_trainer(output_dir, rows=MasksAtRandom())


def global_random_in_data_twin(output_dir):
    return make_trainer(output_dir, rows=MasksByIndex())


# --- the model counts in Python ---


class CountsCalls(BertForSequenceClassification):
    effect = 0.01

    def __init__(self, config):
        super().__init__(config)
        self.calls = 0

    def forward(self, input_ids=None, attention_mask=None, labels=None):
        output = super().forward(input_ids=input_ids, attention_mask=attention_mask, labels=labels)
        self.calls += 1
        output.loss = output.loss * (1 + self.effect * self.calls)
        return output


class CountsForDisplay(CountsCalls):
    effect = 0.0


def python_counter(output_dir):
    return make_trainer(output_dir, model=make_model(CountsCalls))


def python_counter_twin(output_dir):
    return make_trainer(output_dir, model=make_model(CountsForDisplay))


# --- the sampler starts at epoch 0 again ---


class CountsItsEpochs(torch.utils.data.Sampler):
    """Shuffles by an epoch that it counts by itself, from 0 in every process."""

    def __init__(self):
        self.epoch = 0

    def __len__(self):
        return ROWS

    def __iter__(self):
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(self.epoch))
        self.epoch += 1
        return iter(order.tolist())


class IsToldItsEpoch(CountsItsEpochs):
    """Shuffles by the epoch that the trainer sets."""

    def __iter__(self):
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(self.epoch))
        return iter(order.tolist())

    def set_epoch(self, epoch):
        self.epoch = epoch


class OwnSampler(Trainer):
    sampler = CountsItsEpochs

    def get_train_dataloader(self):
        return self.accelerator.prepare(
            torch.utils.data.DataLoader(
                self.train_dataset, batch_size=4, sampler=self.sampler(), collate_fn=self.data_collator
            )
        )


class OwnSamplerToldItsEpoch(OwnSampler):
    sampler = IsToldItsEpoch


def sampler_starts_again(output_dir):
    return make_trainer(output_dir, OwnSampler)


def sampler_starts_again_twin(output_dir):
    return make_trainer(output_dir, OwnSamplerToldItsEpoch)


# --- saving draws from torch's stream ---


class SavingDraws(Trainer):
    def _save_checkpoint(self, model, trial):
        super()._save_checkpoint(model, trial)
        note = {"salt": self.draw()}
        (Path(self.args.output_dir) / "note.json").write_text(json.dumps(note))

    def draw(self):
        return torch.rand(1).item()


class SavingDrawsFromItsOwn(SavingDraws):
    def draw(self):
        return torch.rand(1, generator=torch.Generator().manual_seed(1)).item()


def saving_draws(output_dir):
    return make_trainer(output_dir, SavingDraws)


def saving_draws_twin(output_dir):
    return make_trainer(output_dir, SavingDrawsFromItsOwn)


# --- one weight is one unit in the last place off ---


class OneUlpOff(Trainer):
    steps = 1

    def _load_from_checkpoint(self, checkpoint, model=None):
        super()._load_from_checkpoint(checkpoint, model)
        weight = self.model.bert.encoder.layer[1].attention.self.key.weight
        with torch.no_grad():
            up = torch.nextafter(weight[3, 4], torch.tensor(9.0))
            weight[3, 4] = up if self.steps == 1 else torch.nextafter(up, torch.tensor(-9.0))


class ThereAndBack(OneUlpOff):
    steps = 0


def one_ulp_off(output_dir):
    return make_trainer(output_dir, OneUlpOff)


def one_ulp_off_twin(output_dir):
    return make_trainer(output_dir, ThereAndBack)


# --- a buffer is not persistent ---


class KeepsAMean(BertForSequenceClassification):
    persistent = False

    def __init__(self, config):
        super().__init__(config)
        self.register_buffer("mean", torch.zeros(3), persistent=self.persistent)

    def forward(self, input_ids=None, attention_mask=None, labels=None):
        output = super().forward(input_ids=input_ids, attention_mask=attention_mask, labels=labels)
        self.mean.mul_(0.9).add_(0.1 * output.logits.detach().mean(0))
        output.loss = torch.nn.functional.cross_entropy(output.logits - self.mean, labels)
        return output


class KeepsAPersistentMean(KeepsAMean):
    persistent = True


def buffer_not_persistent(output_dir):
    return make_trainer(output_dir, model=make_model(KeepsAMean))


def buffer_not_persistent_twin(output_dir):
    return make_trainer(output_dir, model=make_model(KeepsAPersistentMean))
