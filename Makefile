# make demo   the main job on the sample head (window if there is a display, files otherwise)
# make test   every check: style, types, floors, tests
# VENV=/path/to/env puts the environment elsewhere.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# Two windows at a time want a screen each, which Xvfb gives them; on a real screen they would take the keyboard from each other.
WINDOWS := $(shell command -v Xvfb >/dev/null 2>&1 && echo 2 || echo 1)

.PHONY: demo fuzz test lint types floors tests constraints bench contact-sheet train-skullstrip train-headnet train-denoise train-click3d train-mender train-superres train-isotropic train-sharper clean

demo: $(VENV)/.ready
	$(BIN)/napari-mri demo

test: $(VENV)/.ready lint types floors tests

lint: $(VENV)/.ready
	$(BIN)/ruff check napari_mri tests training benchmarks sample_data

types: $(VENV)/.ready
	$(BIN)/mypy

floors: $(VENV)/.ready
	$(BIN)/lint-imports

tests: $(VENV)/.ready
	@sh tests/missing_packages.sh
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --no-xvfb --ignore tests/gui $(PYTEST_ARGS)
	OMP_NUM_THREADS=1 LP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WINDOWS) --dist worksteal tests/gui $(PYTEST_ARGS)

# One environment with everything. napari needs Python 3.11: where python3 is older, uv brings one.
$(VENV)/.ready: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "uv>=0.5"
	@if ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	    $(BIN)/uv venv --quiet --clear --seed --python 3.12 $(VENV).new && rm -rf $(VENV) && mv $(VENV).new $(VENV) && \
	    $(BIN)/python -m pip install --quiet "uv>=0.5"; fi
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e ".[all,test,train]"
	@touch $@

# The pinned set: resolved by uv from setup.cfg and constraints.in, for Python 3.11 and later.
constraints:
	uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-annotate --no-header \
	    --all-extras --no-emit-package napari-mri-workbench -c constraints.in setup.cfg -o constraints.txt

train-click3d: $(VENV)/.ready
	$(BIN)/python -m training.train_click3d --resume

# Goes on from its checkpoint, or begins with the click network's levels; to be looked at before it is shipped.
train-mender: $(VENV)/.ready
	$(BIN)/python -m training.train_mender --resume --init napari_mri/weights/click3d.safetensors --export runs/mender

# Goes on from the last checkpoint; the weights and their card land in runs/, to be looked at before they are shipped.
# Skull-strip and the names of structures are two answers of one network.
train-skullstrip: train-headnet

train-headnet: $(VENV)/.ready
	$(BIN)/python -m training.train_headnet --export runs/headnet

train-denoise: $(VENV)/.ready
	$(BIN)/python -m training.train_denoise --export napari_mri/weights

train-superres: $(VENV)/.ready
	$(BIN)/python -m training.train_superres --resume --export runs/superres

train-isotropic: $(VENV)/.ready
	$(BIN)/python -m training.train_isotropic --export runs/isotropic

train-sharper: $(VENV)/.ready
	$(BIN)/python -m training.train_sharper --export runs/isotropic

# Damaged files of every format, each in a process that may die: INPUTS=2000 for a short round.
fuzz: $(VENV)/.ready
	$(BIN)/python -m fuzz --inputs $(or $(INPUTS),20000)

contact-sheet: $(VENV)/.ready
	$(BIN)/python -m training.contact_sheet

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
