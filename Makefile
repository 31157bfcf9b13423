# Each target makes what it needs: a virtual environment in .venv, with the versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: test test-long test-versions test-loaders test-site demo reproduce-methods convergence benchmark benchmark-peers docs results notebooks data-fashion-mnist data-cifar10 data-cifar100 clean

test: .venv/installed ## Everything that CI runs.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-long: .venv/installed ## What takes longer: every combination, many kills, long runs, other versions, other loaders, and the site.
	$(BIN)/python -m pytest -n 2 --dist worksteal -m long --ignore=tests/test_loaders.py --ignore=tests/test_site.py
	$(MAKE) test-versions test-loaders test-site

PYTHON_OLD ?= python3.11
PYTHON_NEW ?= python3.13
ELSEWHERE := .cache/versions
OF_THE_PROGRAM := tests/experiments tests/test_built_site.py tests/test_docs.py tests/test_loaders.py tests/test_notebooks.py tests/test_package.py \
	tests/test_pictures.py tests/test_site.py

test-versions: test-on-old test-on-new test-on-lowest ## The core: Python 3.11 with jax 0.10, 3.13 with 0.12, lowest versions.

test-on-%: $(ELSEWHERE)/%/installed
	$(ELSEWHERE)/$*/bin/python -m pytest -n 2 --dist worksteal $(OF_THE_PROGRAM:%=--ignore=%)

$(ELSEWHERE)/old/installed: FROM := $(PYTHON_OLD)
$(ELSEWHERE)/new/installed: FROM := $(PYTHON_NEW)
$(ELSEWHERE)/lowest/installed: FROM := $(PYTHON_OLD)

$(ELSEWHERE)/%/installed: pyproject.toml constraints.txt
	$(FROM) -m venv $(@D)
	$(FROM) -m tests.lowest_versions > $(@D)/lowest.txt
	$(@D)/bin/pip install --quiet --constraint $(if $(filter lowest,$*),$(@D)/lowest.txt,constraints.txt) --editable '.[core-tests]'
	touch $@

.PRECIOUS: $(ELSEWHERE)/%/installed

test-loaders: $(ELSEWHERE)/loaders/installed ## Batch plans with PyTorch, Grain and Hugging Face datasets, which it installs.
	$(ELSEWHERE)/loaders/bin/python -m pytest -m '' tests/test_loaders.py

$(ELSEWHERE)/loaders/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --constraint constraints.txt --editable '.[core-tests,loaders]'
	touch $@

test-site: .venv/installed ## The site in Chromium, which must be installed.
	$(BIN)/python -m pytest -m '' tests/test_site.py

reproduce-methods: .venv/installed ## Every method on the embedded digits, three seeds: error, gradients and time.
	$(BIN)/python -m experiments.reproduce_methods --output runs/methods

demo: .venv/installed ## The paper's nine cells on the embedded digits, three seeds.
	$(BIN)/python -m experiments.reproduce --output runs/digits

docs: .venv/installed ## The site, into site/: it opens from the disk, without a network.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

results: .venv/installed ## The tables of the committed reports, again from their runs.csv.
	$(BIN)/python -m experiments.report --again docs/results/*/runs.csv

notebooks: .venv/installed ## The notebooks, from their sources; executed if their code has changed, with CIFAR-100 in DATA_DIR=...
	$(BIN)/python docs/_notebooks/execute.py $(if $(DATA_DIR),--data-dir "$(DATA_DIR)")

clean: ## Remove what the other targets made, runs/ apart.
	rm -rf .venv .cache site .pytest_cache .ruff_cache .hypothesis .import_linter_cache

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("sam_optax needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[experiments,dev]'
	touch $@

FASHION_MNIST := /usr/share/datasets/fashion-mnist

data-fashion-mnist: .venv/installed ## The real Fashion-MNIST, from Debian's package; DATA_DIR=... for a folder other than TFDS's.
	@set -e; folder=$(FASHION_MNIST); \
	if [ ! -d "$$folder" ]; then \
		package=$$(mktemp -d); trap 'rm -rf "$$package"' EXIT; \
		(cd "$$package" && apt-get download dataset-fashion-mnist && dpkg-deb -x dataset-fashion-mnist_*.deb .); \
		folder=$$package$(FASHION_MNIST); \
	fi; \
	$(BIN)/python -m experiments.prepare fashion_mnist --source "$$folder" $(if $(DATA_DIR),--data-dir "$(DATA_DIR)")

PREPARE = $(BIN)/python -m experiments.prepare $(@:data-%=%) $(if $(FROM),--source "$(FROM)") $(if $(DATA_DIR),--data-dir "$(DATA_DIR)")

data-cifar10: .venv/installed ## CIFAR-10 from FROM=FOLDER, its binary archive or the unpacked folder; DATA_DIR=... as above.
	$(PREPARE)

data-cifar100: .venv/installed ## CIFAR-100 from FROM=FOLDER, in the same way.
	$(PREPARE)

benchmark: .venv/installed ## Speed and memory of a step and of the loop around it, as ratios: an hour and a half on two cores.
	$(BIN)/python -m experiments.benchmark --output runs/benchmark

benchmark-peers: .venv/installed ## An epoch of ResNet-18 and of ViT-Tiny with SAM and GSAM against PyTorch's, which it installs.
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[benchmark-peers]'
	$(BIN)/python -m experiments.benchmark --output runs/benchmark-peers --models --peers resnet18 vit_tiny

convergence: .venv/installed ## Gradient norms along training, on a quadratic and on the digits: five to ten minutes on two cores.
	$(BIN)/python -m experiments.convergence --output runs/convergence
