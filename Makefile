# Every target that needs it makes the virtual environment first; the stamp file makes the second call free.

DOMAIN ?= photo2cartoon
METHOD ?= cyclegan
ARGS ?=
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUN ?= runs/$(DOMAIN)/$(METHOD)/latest

.PHONY: help install train translate app export evaluate curves tensorboard data get check-data bench gpu-check test campaign lint clean

help:
	@echo "make train DOMAIN=photo2cartoon [METHOD=cyclegan] [ARGS=\"training.stop_at=500 ...\"]"
	@echo "make translate DOMAIN=photo2cartoon INPUT=folder-or-file OUTPUT=folder [METHOD=...] [DIRECTION=ab]"
	@echo "make app DOMAIN=photo2cartoon [ARGS=\"--port 8000 ...\"]    (a page to try all its runs)"
	@echo "make export DOMAIN=photo2cartoon OUTPUT=FILE.onnx [DIRECTION=ab] [ARGS=\"--precision int8 ...\"]    (or FILE.pt2)"
	@echo "make evaluate DOMAIN=photo2cartoon [METHOD=...] [ARGS=\"--features inception ...\"]    make curves DOMAIN=..."
	@echo "make tensorboard [DOMAIN=...]    make data DOMAIN=photo2cartoon    make bench [ARGS=\"CONFIG.yaml --json FILE\"]"
	@echo "make get DOMAIN=horse2zebra    (a known data set; without DOMAIN: the list)    make check-data DOMAIN=..."
	@echo "make gpu-check [OUTPUT=folder] [ARGS=\"eager translate ...\"]    (what to measure first on a new GPU)"
	@echo "make install    make test    make campaign    make lint    make clean"

install: $(STAMP)

$(STAMP): setup.cfg setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gan_nst needs Python 3.11 or newer; give PYTHON=python3.x")'
	@echo "installing into $(VENV) (once; torch is large)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat --editable ".[dev]"
	@touch $@

train: $(STAMP)
	@$(BIN)/gan-nst train --domain "$(DOMAIN)" --method "$(METHOD)" $(ARGS)

translate: $(STAMP)
	@test -n "$(INPUT)" && test -n "$(OUTPUT)" || { echo "make translate: give INPUT=folder-or-file and OUTPUT=folder" >&2; exit 2; }
	@$(BIN)/gan-nst translate "$(RUN)" "$(INPUT)" --output "$(OUTPUT)" $(if $(DIRECTION),--direction "$(DIRECTION)") $(ARGS)

app: $(STAMP)
	@$(BIN)/gan-nst app "runs/$(DOMAIN)" $(ARGS)

export: $(STAMP)
	@test -n "$(OUTPUT)" || { echo "make export: give OUTPUT=FILE.onnx, FILE.pt2 or FILE.safetensors" >&2; exit 2; }
	@$(BIN)/gan-nst export "$(RUN)" --format "$(patsubst .%,%,$(suffix $(OUTPUT)))" --output "$(OUTPUT)" $(if $(DIRECTION),--direction "$(DIRECTION)") $(ARGS)

evaluate: $(STAMP)
	@$(BIN)/gan-nst evaluate "$(RUN)" $(ARGS)

curves: $(STAMP)
	@$(BIN)/gan-nst curves "$(RUN)" $(ARGS)

tensorboard: $(STAMP)
	@$(BIN)/tensorboard --logdir "runs$(if $(filter command line environment,$(origin DOMAIN)),/$(DOMAIN))" $(ARGS)

data: $(STAMP)
	@$(BIN)/gan-nst data demo --domain "$(DOMAIN)" --method "$(METHOD)" $(ARGS)

get: $(STAMP)
	@$(BIN)/gan-nst data get $(if $(filter command line environment,$(origin DOMAIN)),"$(DOMAIN)") $(ARGS)

check-data: $(STAMP)
	@$(BIN)/gan-nst data check --domain "$(DOMAIN)" --method "$(METHOD)" $(ARGS)

bench: $(STAMP)
	@$(BIN)/gan-nst bench $(ARGS)

gpu-check: $(STAMP)
	@$(BIN)/python -m gan_nst.bench.gpu_check "$(or $(OUTPUT),runs/gpu-check)" $(ARGS)

test: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

campaign: $(STAMP)
	@$(BIN)/python tests/campaigns/load.py
	@$(BIN)/python tests/campaigns/week.py
	@$(BIN)/python tests/campaigns/run.py $(ARGS)

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

clean:
	rm -rf $(VENV) datasets/.cache .mypy_cache .ruff_cache .pytest_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
