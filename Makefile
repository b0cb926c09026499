# make demo: set up and segment the embedded scan.   make test: the tests.   make test-slurm: on a Slurm of their own.   make setup TORCH=cpu|cuda
VENV ?= .venv
TORCH ?= auto
BIN := $(abspath $(VENV))/bin
SNAKEMAKE := $(BIN)/snakemake --snakefile $(CURDIR)/Snakefile --workflow-profile $(CURDIR)/workflow/profiles/default

.PHONY: setup demo test test-all test-slurm lint clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml envs/requirements.lock envs/setup.sh
	envs/setup.sh $(VENV) $(TORCH)
	@touch $@

demo: setup
	mkdir -p demo
	$(SNAKEMAKE) --directory demo --cores all --quiet rules progress
	$(SNAKEMAKE) --directory demo --cores 1 --quiet all --report results/report.html
	@echo "workflow report: demo/results/report.html"

test: setup lint
	$(BIN)/python -m pytest -m "not slow and not gpu and not slurm" -q

test-all: setup lint
	$(BIN)/python -m pytest -q

# As root, on Debian or Ubuntu: installs Slurm, which the tests start and stop themselves.
test-slurm: setup
	test -x /usr/sbin/slurmctld || (apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge)
	$(BIN)/python -m pytest -q -m slurm

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy
	$(SNAKEMAKE) --lint

clean:
	rm -rf demo results logs .snakemake
