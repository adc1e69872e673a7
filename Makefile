# Every target sets up .venv first. Needs Python 3.11, 3.12 or 3.13 with venv, and make; no Docker, Java or Kafka.
#
#   PYTHON=python3.12 make install      another Python than the first that fits
#   make test ARGS='-k restore -x'      options for pytest
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make install      torch without CUDA, some GB smaller, for Linux without a GPU

.DEFAULT_GOAL := help
.PHONY: help install demo test check format docs bench memory verify crash soak clean

BIN := .venv/bin
INSTALLED := .venv/installed
PYTHON ?=

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s  %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED) ## .venv with everything in it (again only when pyproject.toml changed)

demo: $(INSTALLED) ## the whole loop in one terminal; LOG=FILE for your own event log, SERVE=1 to stay up with a page
	@$(BIN)/rec2pm demo $(if $(LOG),--log "$(LOG)") $(if $(SERVE),--serve)

# In two processes where there are two cores: much of the time is waiting. A file stays in one process, for what its tests have in
# common, and files begin in their order: those with processes and brokers of their own, which take long, come before the quick ones.
test: $(INSTALLED) ## all tests; on the embedded broker, or on a Kafka in KAFKA_HOME or REC2PM_TEST_BOOTSTRAP; ARGS= for pytest
	@$(BIN)/pytest -n logical --maxprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(INSTALLED) ## format, lint, types, imports: what CI runs beside the tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED) ## format the sources and repair what the linter can
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: $(INSTALLED) ## the documentation site into var/site; a broken link or a page outside the navigation is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

bench: $(INSTALLED) ## throughput and latency on this machine; ARGS= for its options
	@$(BIN)/python -m bench $(ARGS)

memory: $(INSTALLED) ## what a memory is worth where the past says more than the newest items do; ARGS= for its options
	@$(BIN)/python -m bench.memory $(ARGS)

verify: $(INSTALLED) ## live workers, promotions, kill -9s if asked: every state and list replayed; LOG=FILE WORKERS=2 KILLS=0 ARGS=
	@$(BIN)/python -m tests.verify $(if $(LOG),--log "$(LOG)") $(if $(WORKERS),--workers $(WORKERS)) $(if $(KILLS),--kills $(KILLS)) $(ARGS)

crash: $(INSTALLED) ## workers under every kind of fault, and nothing lost or doubled; needs KAFKA_HOME; SECONDS=60 SEED=0; ARGS=
	@$(BIN)/python -m tests.crash --seconds $(or $(SECONDS),60) --seed $(or $(SEED),0) $(ARGS)

soak: $(INSTALLED) ## versions promoted under a steady load, every list recomputed, what a swap costs; SWAPS=200 LOG=FILE ARGS=
	@$(BIN)/python -m tests.soak --swaps $(or $(SWAPS),200) $(if $(LOG),--log "$(LOG)") $(ARGS)

clean: ## remove .venv and caches; var/ (models, state) stays
	rm -rf .venv build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A name in PATH is not enough: pyenv's shims exist for versions that are not active, and Debian's python3 may come without venv.
FITS := import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))

$(INSTALLED): pyproject.toml
	@if ! { $(BIN)/python -c '$(FITS)' && $(BIN)/python -m pip --version; } >/dev/null 2>&1; then \
	    found=; for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python); do \
	        if "$$python" -c '$(FITS)' >/dev/null 2>&1; then found=$$python; break; fi; \
	    done; \
	    if [ -z "$$found" ]; then \
	        echo "No Python fits (tried: $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python))." >&2; \
	        echo "Needed: 3.11, 3.12 or 3.13 with venv (Debian, Ubuntu: apt install python3-venv). Name it: PYTHON=/path/to/python make install" >&2; \
	        exit 1; \
	    fi; \
	    echo "Making .venv with $$("$$found" --version)"; \
	    "$$found" -m venv --clear .venv || exit 1; \
	fi
	@echo "Installing into .venv; the first time this downloads PyTorch and takes some minutes"
	@rm -f .venv/failed; \
	{ $(BIN)/python -m pip install --no-input --disable-pip-version-check --progress-bar off -e '.[dev]' || touch .venv/failed; } \
	    | sed -n -e 's/^ *Downloading \([^ ]*\) (\([0-9.]* [MG]B\)).*/  \1  \2/p' -e 's/^Installing collected packages.*/  installing/p'; \
	if [ -e .venv/failed ]; then echo "Installing failed: pip's reason is above" >&2; exit 1; fi
	@touch $@
