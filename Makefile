# make sweep: set up and run the main job.  make test: set up and run the tests.  make ui: MLflow's pages.
# make stamps: fetch the real corpus.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
# Processes that share the tests, those on Slurm too: tests that kill daemons do so on a cluster of their own.
WORKERS ?= 2
# The .deb of tuxpaint-stamps-default, or a folder it was unpacked into, where apt cannot fetch it.
STAMPS ?=

.PHONY: sweep test lint stamps ui

sweep: $(INSTALLED)
	$(BIN)/python jobs/prepare.py --corpus scenes --out corpora/scenes --image-short-side 72
	$(BIN)/python jobs/submit.py --grid sweeps/size.yaml --miniature $(SWEEP_ARGS)

test: $(INSTALLED) lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m 'not slurm' $(PYTEST_ARGS)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m slurm $(PYTEST_ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# MLflow's pages; make ui UI_ARGS='size --port 5001'
ui: $(INSTALLED)
	@$(BIN)/python jobs/ui.py $(UI_ARGS)

stamps: $(INSTALLED)
	$(BIN)/python jobs/fetch_stamps.py --out corpora/stamps/raw $(if $(STAMPS),--deb $(STAMPS))
	$(BIN)/python jobs/prepare.py --corpus stamps --root corpora/stamps/raw --out corpora/stamps --image-short-side 54
	@echo "now: $(BIN)/python jobs/submit.py --grid sweeps/stamps.yaml"

$(INSTALLED): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: $(PYTHON) is older than Python 3.10; run make with PYTHON=python3.11 or another"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $(INSTALLED)
