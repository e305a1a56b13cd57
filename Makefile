# Every command of the project; `make` alone lists them. Each one first sets up what it needs, once.

# Where packages go: the active virtual or conda environment, else .venv here. conda's own environment, `base`, does
# not count as one: pinned versions would disturb everything else that lives in it.
ACTIVE := $(or $(VIRTUAL_ENV),$(if $(filter base,$(CONDA_DEFAULT_ENV)),,$(CONDA_PREFIX)))
ENV := $(or $(ACTIVE),.venv)
PYTHON := "$(ENV)/bin/python"

# A stamp lies inside the environment and repeats what was installed there and for which folder; the set-up is done
# again when any of it changes. Contents, not times: git gives every file a new time.
STAMP = "$(ENV)/.cifar10-report$(1)"
WANTED = pwd; cat requirements$(1).txt constraints.txt pyproject.toml
READY = $(shell [ "$$($(WANTED))" = "$$(cat $(STAMP) 2>/dev/null)" ] && [ -x $(PYTHON) ] && echo yes)

# The kernel "python3" is to be this environment's, not one registered in the user's home.
export JUPYTER_PREFER_ENV_PATH := 1

# What to change for one report: make report SET="ImprovedNet.rotation=15 seed=1". It goes through the environment, so
# that no shell reads it as a command.
SET ?=
export SET
CHANGED = $(if $(value SET),--set "$$SET")

EXPERIMENTS := search seeds ablation design shifts long recipe wrong_labels rare teaching taught frontier specialist smoothing choices

.PHONY: help report quick fast verify retrain $(EXPERIMENTS) bench test torture lab lint format clean setup setup-dev setup-cluster
.DEFAULT_GOAL := help

help:
	@awk -F ':.*## ' '/^[a-z_]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

report: setup ## run every notebook on the published weights and write reports/ (minutes)
	@$(PYTHON) -m helpers.report --profile full $(CHANGED)

quick: setup ## train all networks for a short time and write the whole report to reports/quick/ (20 minutes)
	@$(PYTHON) -m helpers.report --profile quick --train-minutes 30 $(CHANGED)

fast: setup ## train FastNet alone and see its learning curve grow (15 minutes)
	@$(PYTHON) -m helpers.commands.fast

retrain: setup ## train every published run from scratch (hours; goes on where it was stopped), then write reports/
	@$(PYTHON) -m helpers.commands.retrain
	@$(PYTHON) -m helpers.report --profile full || { \
	    echo "The networks are trained and stored; make report goes on from here." >&2; exit 1; }

verify: setup ## run the report again beside the published one and compare every number (9 minutes)
	@$(PYTHON) -m helpers.commands.verify

search: setup ## train the trials of interpolation and label smoothing (1 hour; goes on where it was stopped)
seeds: setup ## train both networks again from other seeds (1 hour; goes on where it was stopped)
ablation: setup ## train ImprovedNet without each of its parts (1 hour; goes on where it was stopped)
design: setup ## train six architectures, from BaselineNet to ImprovedNet, with both recipes (a day)
shifts: setup ## train BaselineNet with shifts of 4 pixels, from three seeds (15 minutes)
long: setup ## train ImprovedNet at full length without single parts (hours)
recipe: setup ## train ImprovedNet at 40 epochs with parts of its recipe (2 hours)
wrong_labels: setup ## train ImprovedNet on wrong labels, with cross-entropy and a bounded loss (2 hours)
rare: setup ## train ImprovedNet on classes of unequal size (1 hour)
teaching: setup ## train ImprovedNet for 25 epochs with FastNet as its teacher, in sixteen ways (hours)
taught: setup ## train ImprovedNet at full length with the best of these (hours)
frontier: setup ## train FastNet and FastNetSmall at several lengths, from five seeds (5 hours)
specialist: setup ## train ImprovedNet on cats and dogs alone (half an hour)
smoothing: setup ## train ImprovedNet at 15 epochs without label smoothing, from three seeds (1 hour)
choices: setup ## train ImprovedNet with its learning rate set anew for single choices (1 hour)
$(EXPERIMENTS): $(if $(findstring --cluster,$(OPTIONS)),setup-cluster)
	@$(PYTHON) -m helpers.commands.experiments $@ $(OPTIONS)

bench: setup ## time training beside the way such coursework is usually written (2 minutes)
	@$(PYTHON) -m helpers.commands.bench

test: setup-dev setup-cluster ## run the tests
	@OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q -n auto --dist loadfile

torture: setup-dev setup-cluster ## kill trainings and reports, damage files, try bad input (10 minutes)
	@OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q -n auto -m torture

# Containers run as root, which JupyterLab refuses unless told.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)

lab: setup ## open the notebooks in JupyterLab
	@echo "JupyterLab prints the address to open, which begins with http://localhost. Ctrl-C ends it."
	@$(PYTHON) -m jupyterlab --notebook-dir=. --LabApp.default_url=/lab/tree/notebooks $(AS_ROOT)

lint: setup-dev ## check style (ruff) and types (mypy)
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy

format: setup-dev ## bring the code into the form that lint asks for
	@$(PYTHON) -m ruff check --fix .
	@$(PYTHON) -m ruff format .

clean: ## remove caches and half-made reports, never published runs, reports or downloaded data
	@find $(wildcard helpers notebooks tests reports) \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune \
	    -exec rm -rf {} +
	@rm -rf .pytest_cache .ruff_cache .mypy_cache build *.egg-info reports/smoke reports/custom reports/failed reports/*/failed \
	    reports/.building reports/*/.building reports/runs/.*.new reports/experiments/*/.*.new
	@echo "Removed Python, pytest, ruff, mypy and Jupyter caches, build folders, reports/smoke and failed reports."
	@echo "Kept .venv, data/ (CIFAR-10), cache/ (trainings that can go on), reports/ and its runs."

# ---- Set-up ----------------------------------------------------------------------------------------------------------

# Our constraints stand in for those that a site may set. pip says what it downloads, and how fast, on a terminal only.
PIP = PIP_CONSTRAINT=constraints.txt $(PYTHON) -m pip --disable-pip-version-check --no-input
INSTALL = $(PIP) install $$([ -t 1 ] || echo --quiet)
STOPPED = { echo "The set-up stopped at pip's error above; with that mended (mostly the network), run make again." >&2; \
    exit 1; }

ifeq ($(call READY,),yes)
setup:
else
setup: $(if $(ACTIVE),,.venv/bin/python)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "The environment $(ENV) has no Python 3.11 or newer:" \
	        "$(if $(ACTIVE),deactivate it and make creates one,delete it and run make again)." >&2; exit 1; }
	@echo "Setting up in $(ENV), once: some minutes, 0.4 GB to download with PyTorch built for CPU only."
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m ensurepip >/dev/null
	@$(TORCH_FOR_CPU)
	@$(INSTALL) -r requirements.txt || $(STOPPED)
	@PYTHONWARNINGS=ignore $(PIP) install --quiet --no-deps --no-build-isolation -e . || $(STOPPED)
	@{ $(call WANTED,); } > $(call STAMP,)
endif

# What only some commands need: packages for tests and style, and for trainings on a cluster.
define MORE
setup$(1): setup
ifneq ($(call READY,$(1)),yes)
	@echo "Adding the packages of requirements$(1).txt to $(ENV), once."
	@$$(INSTALL) -r requirements$(1).txt || $$(STOPPED)
	@{ $(call WANTED,$(1)); } > $(call STAMP,$(1))
endif
endef
$(eval $(call MORE,-dev))
$(eval $(call MORE,-cluster))

# The ordinary Linux build of PyTorch brings several GB of CUDA; a machine without an NVIDIA GPU is better off with the
# build for CPU, from PyTorch's own index. TORCH=cuda takes the ordinary one all the same.
TORCH ?= $(if $(shell nvidia-smi -L 2>/dev/null),cuda,$(if $(filter Linux,$(shell uname -s)),cpu))
CPU_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH_PINS := $(shell grep -oE '^torch(vision)?==[^ ]+' requirements.txt)
TORCH_FOR_CPU = $(if $(filter cpu,$(TORCH)),$(INSTALL) --retries 0 --timeout 10 --no-deps --index-url $(CPU_INDEX) \
    $(TORCH_PINS) 2>/dev/null || \
    echo "PyTorch's index of CPU builds cannot be reached: installing the build that pip finds.",true)

# requirements.txt is meant for Python 3.11 to 3.13; a later one is taken only where there is no other. `python3` comes
# first, being the one people mean.
FITS = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $$newest))
WITH_VENV = import ensurepip, venv; $(FITS)

.venv/bin/python:
	@for newest in 13 99; do for python in python3 python3.13 python3.12 python3.11; do \
	    if $$python -c "$(WITH_VENV)" 2>/dev/null; then exec $$python -m venv --clear .venv; fi; \
	done; done; \
	for python in python3 python3.13 python3.12 python3.11; do \
	    if $$python -c "$(FITS)" 2>/dev/null; then \
	        echo "Python 3.11 or newer is here, but not its module venv:" \
	            "install it (Debian, Ubuntu: sudo apt install python3-venv) and run make again." >&2; exit 1; fi; \
	done; \
	found=$$(python3 -c 'import sys; print("Python %d.%d" % sys.version_info[:2])' 2>/dev/null); \
	echo "Python 3.11 or newer is needed and python3 is $${found:-not installed}:" \
	    "install one (Debian, Ubuntu: sudo apt install python3 python3-venv; or conda env create)" \
	    "and run make again." >&2; exit 1
