"""What is in a checkpoint, what is missing, and what a resume would silently lose.

In flows the path of a checkpoint or of an output directory, out flows a `Diagnosis`. `doctor.py` is the file to open
first; `layouts/` has one table for each framework (which file holds what, what is lost without it), `reading/` reads
files without trusting them, `diagnosis.py` holds the facts that come out.
"""
