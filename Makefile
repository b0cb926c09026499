# make demo: set up and segment the embedded scan.   make setup TORCH=cpu|cuda   make docs: the site.
# make test: the tests.   make test-slurm: those on a Slurm of their own.
VENV ?= .venv
TORCH ?= auto
SLURM_TESTS ?= slurm
SLURM_NAMES ?=
BIN := $(abspath $(VENV))/bin
# Thousands of short processes import the library: let Python keep what it compiles, wherever that is switched off.
export PYTHONDONTWRITEBYTECODE :=
SNAKEMAKE := $(BIN)/snakemake --snakefile $(CURDIR)/Snakefile --workflow-profile $(CURDIR)/workflow/profiles/default

.PHONY: setup demo test test-all test-slurm lint docs pictures clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml envs/requirements.lock envs/setup.sh
	envs/setup.sh $(VENV) $(TORCH)
	@touch $@

demo: setup
	mkdir -p demo
	$(SNAKEMAKE) --directory demo --cores all --quiet rules progress
	$(SNAKEMAKE) --directory demo --cores 1 --quiet all --report results/report.html
	@echo "workflow report: demo/results/report.html"

test: setup lint docs $(VENV)/ome-zarr/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not gpu and not slurm" -q -n 2 --dist loadscope --no-loadscope-reorder

test-all: setup lint docs $(VENV)/ome-zarr/.ready
	$(BIN)/python -m pytest -q

# A reader whose pydantic is older than Snakemake's.
$(VENV)/ome-zarr/.ready: tests/ome_zarr.lock | setup
	$(BIN)/python -m venv $(VENV)/ome-zarr
	$(VENV)/ome-zarr/bin/python -m pip --disable-pip-version-check -q install -r tests/ome_zarr.lock
	@touch $@

# As root, on Debian or Ubuntu: installs Slurm, which the tests start and stop themselves. Where it cannot be installed
# they skip, unless BEAMSEG_SLURM=required; where it is there and they could not start it, this fails and says why.
test-slurm: setup
	test -x /usr/sbin/slurmctld || (apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge) || \
	  echo "Slurm cannot be installed here"
	test "$$(id -u)" != 0 || test ! -x /usr/sbin/slurmctld || (cd tests/slurm && $(BIN)/python -c "import cluster, sys; sys.exit(cluster.missing())")
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 4 --dist worksteal -m "$(SLURM_TESTS)" -k "$(SLURM_NAMES)" -rs --durations 0 tests/slurm

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy
	$(SNAKEMAKE) --lint

docs: setup
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "site: docs/_build/html/index.html"

# The pictures of the documentation, from the demo.
pictures: demo
	$(BIN)/python docs/pictures.py demo/results/demo

clean:
	rm -rf docs/_build docs/reference demo results logs .snakemake
