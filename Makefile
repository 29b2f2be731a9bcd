# Two commands do everything on a fresh machine: `make demo` and `make test`.
# Needs Python 3.11 or newer with venv, and a C compiler.

PYTHON ?= python3
VENV ?= .venv
# A folder with Amazon reviews for `make demo`; without it click logs are generated.
DATA ?=
# Index of CPU-only torch builds, for machines where the default gives CUDA ones.
TORCH_INDEX ?=
# The oldest supported ONNX Runtime: every model must load in it too.
OLDEST = onnxruntime==1.20.1

BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet \
	--constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
SOURCES = pyproject.toml setup.py constraints.txt \
	$(wildcard csrc/*.* csrc/ops/*.* din_infer/*.pyx)
KERNEL_TESTS = $(patsubst %,tests/test_%.py,hash encode columns arrow_types arrow_abi wrong_calls repeats encoding_parts vocabulary)
C_FILES = $(wildcard csrc/*.[ch] csrc/ops/*.[ch] csrc/ops/*.cu csrc/ops/*.cuh) \
	tests/emulate_avx512.h tests/cuda/emulation.h

.PHONY: demo test sanitize lint format clean

demo: $(VENV)/installed  ## generate (or DATA=folder), train, convert, score
	OMP_WAIT_POLICY=passive $(BIN)/python examples/demo.py $(if $(DATA),--data "$(DATA)") --out demo

test: $(VENV)/tested-with .oldest  ## all tests
	$(BIN)/python -m pytest

sanitize: $(VENV)/tested-with  ## tests of all C under ASan and UBSan
	DIN_SANITIZE=1 $(BIN)/python setup.py --quiet build_ext --force --parallel 2 \
		--build-lib build/sanitized --build-temp build/sanitized
	DIN_SANITIZE=1 DIN_TEST_BUILD=build/sanitized \
		ASAN_OPTIONS=detect_leaks=0 HYPOTHESIS_PROFILE=few LD_PRELOAD="$$($(CC) \
		-print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
		$(BIN)/python -m pytest -q -s tests/test_ops.py $(KERNEL_TESTS)

lint: $(VENV)/linted-with  ## style, types, stubs, C warnings, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=. $(BIN)/stubtest --mypy-config-file pyproject.toml \
		--ignore-unused-allowlist --allowlist .ci/stubtest_allowlist din_infer._kernels
	PATH="$(BIN):$$PATH" cython-lint din_infer/_kernels.pyx
	$(BIN)/clang-format --dry-run --Werror $(C_FILES)
	git ls-files | xargs $(BIN)/codespell
	for file in $$(grep -o 'csrc/.*\.c\b' csrc/libraries.toml | sort -u); do $(CC) -std=c11 -O2 -Wall -Wextra -Wconversion \
		-Wshadow -Werror -Wno-psabi -Icsrc -c $$file -o /dev/null || exit 1; done

format: $(VENV)/linted-with
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_FILES)

$(VENV)/made:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

$(VENV)/installed: $(VENV)/made $(SOURCES)
	$(PIP) --editable ".[cpu,batch,convert]"
	touch $@

$(VENV)/tested-with: $(VENV)/installed
	$(PIP) --group test
	touch $@

$(VENV)/linted-with: $(VENV)/tested-with
	$(PIP) --group lint
	touch $@

.oldest: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --upgrade --target .oldest --no-deps $(OLDEST)
	touch $@

clean:
	rm -rf build dist demo .venv .oldest *.egg-info din_infer/*.so din_infer/_kernels.c
