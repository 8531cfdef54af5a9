"""Small real trainers for the tests: `plain.py` the base set-up, `mutants.py` ten lost states and their clean twins."""
