"""Known ways to lose state over a resume: small training set-ups with one defect each, and their clean twins.

In: nothing but an output directory. Out: a `transformers.Trainer` whose resume is wrong in one known way, and a twin of
it whose resume is right. `catalogue.SPECIMENS` lists them with the component that a diagnosis must name; open it first,
then `setups`, on which every specimen is a small difference. Importing the catalogue does not import torch.
"""
