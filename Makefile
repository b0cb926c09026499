# make demo: set up and segment the embedded scan.   make test: the tests.   make docs: the site.   make setup TORCH=cpu|cuda
VENV ?= .venv
TORCH ?= auto
BIN := $(abspath $(VENV))/bin
SNAKEMAKE := $(BIN)/snakemake --snakefile $(CURDIR)/Snakefile --workflow-profile $(CURDIR)/workflow/profiles/default

.PHONY: setup demo test test-all lint docs clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml envs/requirements.lock envs/setup.sh
	envs/setup.sh $(VENV) $(TORCH)
	@touch $@

demo: setup
	mkdir -p demo
	$(SNAKEMAKE) --directory demo --cores all --quiet rules progress
	$(SNAKEMAKE) --directory demo --cores 1 --quiet all --report results/report.html
	@echo "workflow report: demo/results/report.html"

test: setup lint docs
	$(BIN)/python -m pytest -m "not slow and not gpu and not slurm" -q

test-all: setup lint docs
	$(BIN)/python -m pytest -q

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy
	$(SNAKEMAKE) --lint

docs: setup
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "site: docs/_build/html/index.html"

clean:
	rm -rf docs/_build docs/reference demo results logs .snakemake
