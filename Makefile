# Both first commands work on a fresh machine: each makes .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
GRID ?= grids/quickstart.yaml
STORAGE ?= runs/quickstart
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: sweep test test-fast docs browser machines lint bench test-lowest clean

sweep: $(VENV)/.installed
	$(BIN)/python orchestrator/sweep.py $(GRID) --storage $(STORAGE)
	$(BIN)/signsym report $(STORAGE) --out $(STORAGE)/report
	@echo "to filter, compare and doubt: $(BIN)/signsym explore $(STORAGE)"

# Tests start hundreds of processes, each of which would compile the same files where the environment forbids to keep them.
test test-fast: export PYTHONDONTWRITEBYTECODE =

# More processes than two cores: those that sweep spend much of their time waiting for Ray. Before them one process imports
# what all will import: on a fresh machine four would compile the same thousands of modules at once.
test: $(VENV)/.installed-test browser machines
	-@$(BIN)/python -m pytest --collect-only --quiet >/dev/null
	$(BIN)/python -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder

# Without a Ray, a server, a browser or another program: for the time between two edits.
test-fast: $(VENV)/.installed-test
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not slow"

# Some tests drive a browser. It is installed where that can be done without asking; elsewhere they are skipped.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || { \
		test "$$(id -u)" = 0 && command -v apt-get >/dev/null && echo "Installing chromium for the browser tests ..." && \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium >/dev/null; \
	} || echo "No chromium, and it cannot be installed here: the browser tests are skipped."

# Some tests make machines of namespaces, with sshd and with SLURM. These are daemons, so they are installed only where
# nothing would start them: in a container. Elsewhere the tests that need what is missing are skipped. After the browser,
# since only one apt-get runs at a time.
MACHINES := openssh-server rsync iproute2 procps slurm-wlm munge
machines: | browser
	@for program in sshd rsync ip pgrep slurmctld slurmd sbatch munged; do \
		command -v $$program >/dev/null || missing="$$missing $$program"; \
	done; test -z "$$missing" || { \
		test "$$(id -u)" = 0 && command -v apt-get >/dev/null && ! test -d /run/systemd/system && \
		echo "Installing $(MACHINES) for the cluster tests ..." && apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $(MACHINES) >/dev/null; \
	} || echo "No$$missing, and they cannot be installed here: some cluster tests are skipped."

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The pages and the API reference as a site. Docstrings are read, not imported, so torch is not needed.
docs: .venv-docs/.installed
	.venv-docs/bin/mkdocs build --strict --quiet
	@echo "site/index.html"

.venv-docs/.installed: docs/requirements.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --requirement docs/requirements.txt
	@touch $@

bench: $(VENV)/.installed-test
	$(BIN)/python benchmarks/run.py

# The oldest versions that pyproject.toml admits, in an environment of their own.
test-lowest:
	$(MAKE) VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt test

CONSTRAINTS ?= constraints.txt

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "signsym needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	@echo "Installing into $(VENV): about 5 GB with torch and its CUDA libraries, a minute or two ..."
	$(PIP) --constraint $(CONSTRAINTS) --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	@echo "Installing into $(VENV) what the tests need ..."
	$(PIP) --constraint $(CONSTRAINTS) --editable '.[test]'
	@touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) .venv-lowest .venv-docs site runs .pytest_cache .mypy_cache .ruff_cache
