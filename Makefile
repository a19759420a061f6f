# make demo   the whole demo study, on any laptop, without a download of a model or of data
# make demo-full   the same study with all of its evidence
# make dev    the Dagster UI of that study on http://127.0.0.1:3000
#             make dev IM_PROFILE=mine.yaml PORT=3001   that of another one
# make new-study NAME=mine CANDIDATES="data/*.csv" EVAL=data/eval.jsonl   a profile for your own files
# make run IM_PROFILE=mine        the whole of a study; ARGS=--plan what it would cost
# make doctor      what keeps that study from running, or may, and what to do
# make snapshot    a copy of that study's warehouse, for readers and to go back to
# make install-cluster   what the deployments on a cluster need as well (docs/cluster.md)
# make test · make check · make settings · make lock · make clean · make distclean
# eval "$(make -s env)" gives a shell the same settings, for dagster commands by hand.

# The first Python that is new enough; 3.11 first, because every locked package has a wheel for it.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && break; done)
UV ?= uv
BIN := $(CURDIR)/.venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
# torch's pin lives in pyproject.toml. Another build: make install TORCH_BUILD="--index-url …"
TORCH := $(shell sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)
TORCH_BUILD ?=

# As an activated environment does; `dg` looks for both.
export VIRTUAL_ENV := $(CURDIR)/.venv
export PATH := $(BIN):$(PATH)
export DAGSTER_HOME := $(CURDIR)
export IM_HOME ?= $(CURDIR)/var

.PHONY: demo demo-full run new-study dev doctor snapshot test soak check settings install \
	install-cluster lock env clean distclean

# Commands are called by their path: versions of make differ in whose PATH they look one up in.
# The demo's models come from packages: offline, so that a lapse fails instead of downloading.
demo: install
	IM_PROFILE=demo HF_HUB_OFFLINE=1 $(BIN)/python -m im_assets.run

demo-full: install
	IM_PROFILE=demo_full HF_HUB_OFFLINE=1 $(BIN)/python -m im_assets.run

run: install
	$(BIN)/python -m im_assets.run $(ARGS)

# The files go to the module as they are written: it expands patterns itself, each a source. NAME has
# to be on the command line, since some systems have a variable of that name.
new-study: install
	@test "$(origin NAME)" = "command line" || { \
		echo 'name it: make new-study NAME=mine CANDIDATES="data/a.csv data/b.jsonl" EVAL=data/eval.jsonl' >&2; \
		exit 1; }
	@set -f; $(BIN)/python -m im_assets.new_study $(NAME) --candidates $(CANDIDATES) --pool $(POOL) \
		--evaluation $(EVAL) --fields $(FIELDS) $(if $(EXTENDS),--extends $(EXTENDS)) \
		$(if $(REPLACE),--replace)

dev: install
	$(BIN)/python -m im_assets.dev

# A copy of the warehouse that nothing writes to: var/<study>/snapshot/warehouse.duckdb.
snapshot: install
	$(BIN)/python -m im_resources.snapshot

# Without installing first: it has to work where that failed.
doctor:
	@test -x $(BIN)/python || { echo "nothing is installed yet: make install" >&2; exit 1; }
	@$(BIN)/python -m im_assets.doctor

# A worker a core. The tests of one file stay together, since they share a study or a server; the
# files are taken in the order of tests/conftest.py, not those with the most tests first.
WORKERS ?= auto
test: install
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# Half an hour of landings, withdrawals, kills and readers; then the comparison with a study computed
# from scratch. make soak MINUTES=60
MINUTES ?= 30
soak: install
	$(BIN)/python -m tests.soak --minutes $(MINUTES)

check: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m im_resources.study.documentation --check
	eval "$$($(BIN)/python -m im_resources.study.environment)" && $(BIN)/dg check defs

# docs/settings.md, from the descriptions of the settings.
settings: install
	$(BIN)/python -m im_resources.study.documentation

install: .venv/.installed

# The stamp is written last: an interrupted installation starts again.
# The lock comes first, with hashes and complete. torch follows by its pin, without a hash, because
# that differs by build (see pyproject.toml): with the lock's versions as constraints it finds its
# dependencies there, and brings nothing but the CUDA packages of its build. A version that torch
# cannot live with is an error here, not another version. Hashes are cut out of the constraints,
# since pip would ask one of torch too.
.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "This needs Python 3.11 or newer; found none that is. Name one: make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) install --require-hashes --no-deps -r requirements.lock
	@sed -n 's/^\([A-Za-z0-9][^\]*\) *\\*$$/\1/p' requirements.lock > .venv/constraints.txt
	$(PIP) install --constraint .venv/constraints.txt $(TORCH_BUILD) $(TORCH)
	$(PIP) install --no-build-isolation --no-deps -e .
	IM_PROFILE=demo HF_HUB_OFFLINE=1 $(BIN)/python -m im_resources.language_model.prepare
	@touch $@

# What a cluster needs as well (the extra `cluster`): Ray, DuckLake, object stores.
install-cluster: .venv/.installed-cluster

.venv/.installed-cluster: .venv/.installed requirements-cluster.lock
	$(PIP) install --require-hashes --no-deps -r requirements-cluster.lock
	@touch $@

# Keeps the locked versions that still fit; `make lock UPGRADE=--upgrade` takes the newest.
# Refuses a lock that names an index, a folder or a CUDA package, all of which belong to one machine.
# The cluster's lock holds the other one, at the same versions, and what is needed beside it.
lock:
	@command -v $(UV) >/dev/null || { echo "make lock needs uv: pip install uv"; exit 1; }
	$(call compile,requirements.lock,)
	$(call compile,requirements-cluster.lock,--extra cluster --extra cluster-tests \
		--constraint requirements.lock)

define compile
	@{ test ! -f $(1) || cp $(1) $(1).new; }
	$(UV) pip compile pyproject.toml --extra dev --extra deploy --group demo-model --quiet $(UPGRADE) \
		$(2) --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
		--no-emit-package torch --no-header --output-file $(1).new
	@! grep -nE '://|^(nvidia|cuda|triton)|^-|^ *--(find|index|extra)' $(1).new
	@{ echo "# Everything but torch, with the hashes of every platform. Python 3.11 and newer."; \
	   echo "# Made from pyproject.toml by: make lock"; \
	   echo "# Installed by: pip install --require-hashes --no-deps -r $(1), before torch"; \
	   cat $(1).new; } > $(1)
	@rm $(1).new
endef

# The study's own variables (IM_PROFILE, DAGSTER_STATE and so on) come from the module, quoted. The
# second makes the mixtures' seeds the partitions that `--partition-range` looks up.
env:
	@test -x $(BIN)/python || { echo "first: make install" >&2; exit 1; }
	@$(BIN)/python -m im_resources.study.environment
	@$(BIN)/python -m im_assets.mixtures.partitions
	@echo 'export VIRTUAL_ENV="$(VIRTUAL_ENV)"'
	@echo 'export PATH="$(BIN):$$PATH"'

# var/ holds the studies' results, each with its Dagster history; logs/ and .logs_queue/ are empty folders
# that Dagster makes although its telemetry is off. What `make install` made stays: .venv/ and the
# converted model in .cache/; `make distclean` takes these too.
clean:
	rm -rf var logs .logs_queue build *.egg-info
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv .cache
