"""An ordinary training script on the transformers `Trainer`."""

import sys

import torch
from transformers import BertConfig, BertForSequenceClassification, HfArgumentParser, Trainer, TrainingArguments


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 28

    def __getitem__(self, index):
        words = torch.randint(5, 60, (12,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": words, "labels": index % 3}


(arguments,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(sys.argv[1:])
torch.manual_seed(0)
shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
model = BertForSequenceClassification(BertConfig(vocab_size=64, num_labels=3, **shape))
trainer = Trainer(model=model, args=arguments, train_dataset=Rows())
trainer.train(resume_from_checkpoint=arguments.resume_from_checkpoint)
trainer.save_model()
