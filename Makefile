# make env     create the environment (.venv)
# make verify  train the embedding trainer on real text, kill it, resume it, prove that it is the same run
# make test    lint, types and all tests
# make quick   lint, types and the fast tests (under 3 minutes)
# make docs    the site of the pages in docs/, into build/site; a warning is an error
# make pages   run every command of the tutorial and the guides, and compare what they print (10 minutes)

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: env verify test quick docs pages lint format clean

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || { echo "creating the environment in .venv"; $(PYTHON) -m venv .venv; }
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e ".[embedding,report,distributed,docs,dev]"
	@touch $(STAMP)

verify: env
	$(BIN)/python -m resumecheck.embedding.demo

lint: env
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/ty check

format: env
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: lint
	$(BIN)/python -m pytest --resumecheck -n 2 --dist worksteal

quick: lint
	$(BIN)/python -m pytest --resumecheck -n 2 --dist worksteal -m "not slow"

docs: env
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

pages: env
	$(BIN)/python tests/examples/pages.py docs/tutorial.md docs/how-to/*.md

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache
