# edgec: `make demo` and `make test` each do all their set-up on a fresh machine (Python 3.11 or later).
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# The CPU build of one version, with the torchvision that belongs to it; edgec itself takes the range in pyproject.toml.
TORCH       ?= torch==2.13.*
TORCHVISION ?= torchvision==0.28.*
# PyTorch's own index holds the CPU builds; the general index's Linux builds pull gigabytes of CUDA. Whether it answers is
# asked once: pip would ask again, and complain, for each package.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
CPU_BUILDS   = $$($(PYTHON) -c "import urllib.request; urllib.request.urlopen('$(TORCH_INDEX)/torch/', timeout=20)" \
    2>/dev/null && echo --extra-index-url $(TORCH_INDEX) || echo "$(TORCH_INDEX): no answer, torch from pip's index" >&2)
PIP    := $(BIN)/pip --disable-pip-version-check -qq
JOBS   ?= 2

.PHONY: help setup demo test test-qemu nightly check bench goldens sizes docs misra clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/.ready: pyproject.toml tests/packages.txt tests/torchvision_on_cpu.py
	@echo "setting up $(VENV): about a gigabyte, once"
	@$(PYTHON) -m venv $(VENV)
	@index=$(CPU_BUILDS); $(PIP) install $$index '$(TORCH)' && $(PIP) install --no-deps $$index '$(TORCHVISION)'
	@$(PIP) install -e '.[test]'
	@$(PIP) install --no-deps -r tests/packages.txt
	@$(BIN)/python tests/torchvision_on_cpu.py
	@touch $@

setup: $(VENV)/.ready ## create .venv with everything

demo: setup ## compile the shipped LMUFormer and stream speech through the emulated Cortex-M7
	$(BIN)/python examples/keyword_spotting.py

test: setup ## the test suite (tests that need qemu or arm-none-eabi-gcc are skipped where these are absent)
	$(BIN)/python -m pytest -n $(JOBS) -m 'not nightly' -rs

test-qemu: setup ## only the tests that run qemu
	$(BIN)/python -m pytest -n $(JOBS) -k qemu -rs

nightly: setup ## what is slower than a commit can wait for
	$(BIN)/python -m pytest -n $(JOBS) -m nightly --hypothesis-profile=nightly

check: setup ## ruff, mypy strict, clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy edgec
	$(BIN)/clang-format --dry-run --Werror edgec/runtime/*.h edgec/runtime/*/*.[ch] edgec/device/*.c

bench: setup ## counted instructions, accuracy and sizes behind the README's figures
	$(BIN)/python bench/lmuformer.py
	$(BIN)/python bench/mlperf_tiny.py

goldens: setup ## rewrite the golden C of the small nets
	$(BIN)/python -m pytest tests/backends -k golden --update-golden

sizes: setup ## flash, RAM and stack of each model against bench/sizes.txt
	$(BIN)/python bench/sizes.py

docs: setup ## rewrite the generated tables in docs/
	$(BIN)/python docs/generate.py

misra: setup ## findings of cppcheck's MISRA addon: rewrites docs/c-subset.md (needs cppcheck)
	$(BIN)/python docs/misra.py

clean: ## remove what the build made
	rm -rf build dist out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
