# edgec: `make demo` and `make test` each do all their set-up on a fresh machine (Python 3.11 or later).
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# PyTorch's own index holds the CPU build; the general index's Linux build pulls gigabytes of CUDA.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PIP    := $(BIN)/pip --disable-pip-version-check -q
JOBS   ?= 2

.PHONY: help setup demo test test-qemu nightly check bench goldens sizes docs misra clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/.ready: pyproject.toml tests/packages.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --retries 1 --timeout 60 --extra-index-url $(TORCH_INDEX) 'torch>=2.13,<2.14'
	$(PIP) install -e '.[test]'
	$(PIP) install --no-deps -r tests/packages.txt
	touch $@

setup: $(VENV)/.ready ## create .venv with everything

demo: setup ## compile the shipped LMUFormer and stream speech through the emulated Cortex-M7
	$(BIN)/python examples/keyword_spotting.py

test: setup ## the test suite (tests that need qemu or arm-none-eabi-gcc are skipped where these are absent)
	$(BIN)/python -m pytest -n $(JOBS) -m 'not nightly' -rs

test-qemu: setup ## only the tests that run qemu
	$(BIN)/python -m pytest -n $(JOBS) -k qemu -rs

nightly: setup ## what is slower than a commit can wait for
	$(BIN)/python -m pytest -n $(JOBS) -m nightly

check: setup ## ruff, mypy strict, clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy edgec
	$(BIN)/clang-format --dry-run --Werror edgec/runtime/*.[ch] edgec/device/*.c

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
