# Everything from a fresh machine with Python 3.11+ and make; `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo chat reproduce test drill bench check

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## make .venv with the exact versions of constraints.txt

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is $$($(PYTHON) -V 2>&1); Python 3.11 or newer is needed: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "$(VENV): pip fetches about 2.5 GB (PyTorch, Ray, DeepSpeed, Gradio), which takes minutes"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)
	@$(BIN)/python -m lima_ray --version

demo: $(READY)  ## LIMA in minutes: align the miniature, base and aligned side by side
	@$(BIN)/python -m lima_ray.miniature.demo

chat: $(READY)  ## serve the demo's model and open the chat page (Ctrl-C ends)
	@$(BIN)/python -m serve.open

reproduce: $(READY)  ## the paper's ablations on the miniature: about 45 minutes on two cores
	@$(BIN)/python -m tune.reproduce

test: $(READY)  ## the tests, without those marked slow
	@$(BIN)/python -m pytest -q

drill: $(READY)  ## kill workers, nodes, heads, replicas ...; table in cluster/README.md, 20 minutes
	@$(BIN)/python -m benchmarks.drill --write

bench: $(READY)  ## speed and memory beside others, into docs/benchmarks.md; 30 minutes
	@$(BIN)/python -m benchmarks.suite $(BENCH)

check: $(READY)  ## ruff and pyright, and known advisories on the versions of constraints.txt
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@$(BIN)/python .ci/audit.py
