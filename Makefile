# Two commands do everything on a fresh machine: `make demo` and `make test`.
# Needs Python 3.11 or newer with venv, and a C compiler.

PYTHON ?= python3
VENV ?= .venv
# A folder with Amazon reviews for `make demo`; without it click logs are generated.
DATA ?=
# Index of CPU-only torch builds, for machines where the default gives CUDA ones.
TORCH_INDEX ?=
# The CUDA compiler, to build the operators for CUDA too: three minutes more. Tests
# compile the same sources for this processor.
DIN_NVCC ?=
export DIN_NVCC
# Bytecode is kept, whatever the environment says: without it each process of tests
# compiles for 20 s before its first one.
export PYTHONDONTWRITEBYTECODE =
# Processes that run tests side by side, a file each.
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)
# Pythons to build wheels for.
PYTHONS ?= $(PYTHON)
# What builds images: docker, podman or buildah.
DOCKER ?= docker
# The oldest supported ONNX Runtime: every model must load in it too.
OLDEST = onnxruntime==1.20.1

BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet \
	--constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
SOURCES = pyproject.toml setup.py cuda/nvcc.py constraints.txt \
	$(wildcard csrc/*.* csrc/ops/*.* din_infer/include/*.h din_infer/*.pyx din_infer/*.pxd din_infer/kernels/*)
# of its own where operators for CUDA are asked for
INSTALLED = $(VENV)/installed$(if $(DIN_NVCC),-with-cuda)
PYTEST = $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder
# what the instruction set matters to, and what else runs the C of encoding
ISA_TESTS = $(patsubst %,tests/test_%.py,hash hash_lengths hash_others encode arrow_types exact_types encoding_parts vocabulary)
KERNEL_TESTS = $(ISA_TESTS) $(patsubst %,tests/test_%.py,columns arrow_abi wrong_calls repeats window bad_rows memory)
# of `make test-as`
CPU = avx2
TESTS = tests/test_ops.py tests/test_block.py $(KERNEL_TESTS)
C_FILES = $(wildcard csrc/*.[ch] din_infer/include/*.h examples/c/*.* csrc/ops/*.[ch] csrc/ops/*.cu csrc/ops/*.cuh fuzz/*.[ch] tests/host/*.[ch]) \
	tests/emulate_avx512.h tests/emulate_lanes.h tests/cuda/emulation.h tests/mask_cpu.c

.PHONY: demo test test-fast patterns coverage matrix test-isas test-as test-arm64 test-platforms sanitize doctests lint format \
	docs wheels acceptance clean image image-gpu release fuzz faults tsan leaks mutation pages

demo: $(INSTALLED)  ## generate (or DATA=folder), train, convert, score
	OMP_WAIT_POLICY=passive $(BIN)/python examples/demo.py $(if $(DATA),--data "$(DATA)") --out demo

test-fast: $(VENV)/fast-with  ## most tests, in 3 minutes on 2 cores; says what is left
	DIN_OPS_SHARE=2 HYPOTHESIS_PROFILE=few $(PYTEST) -q -m "not slow"

# One process more than there are cores, for the time that Ray and Spark are waited for.
test: $(VENV)/tested-with .oldest  ## all tests
	$(PYTEST) --numprocesses $$(($(JOBS) + 1))

patterns: $(VENV)/tested-with  ## DINs of public code, each at nine shapes of its example; random ones
	DIN_PATTERNS=all $(PYTEST) --dist load tests/test_torch_patterns.py

# gcov and the sanitizers export names of their own
EXPORTS = c_abi.py::test_the_library_has_what_the_header_declares_and_nothing_more

coverage: $(VENV)/tested-with .oldest  ## all tests; lines run of Python, Cython and C
	$(PIP) --group coverage
	rm -rf build/coverage
	DIN_COVERAGE=1 DIN_NVCC= $(BIN)/python setup.py --quiet build_ext --force \
		--build-lib build/coverage --build-temp build/coverage
	DIN_TEST_BUILD=build/coverage COVERAGE_FILE=build/coverage/python \
		$(PYTEST) --cov --cov-report= --deselect=tests/test_$(EXPORTS)
	COVERAGE_FILE=build/coverage/python $(BIN)/coverage report --skip-covered
	$(BIN)/gcovr --root . --filter csrc/ --filter din_infer/ \
		--merge-mode-functions merge-use-line-min \
		--gcov-ignore-errors no_working_dir_found build/coverage

matrix: $(VENV)/made  ## tests with the oldest and the newest dependencies: noxfile.py
	$(PIP) --group matrix
	$(BIN)/nox

test-isas: $(VENV)/tested-with  ## what names no instruction set, on each but the best
	for isa in $$($(BIN)/python -c "from tests import ops; print(*ops.machine_isas()[:-1])"); \
	do DIN_INFER_ISA=$$isa HYPOTHESIS_PROFILE=few $(PYTEST) --quiet \
		-k "not baseline and not avx2 and not avx512 and not amx" \
		tests/test_ops.py $(ISA_TESTS) || exit 1; done

test-as: $(VENV)/tested-with  ## tests as on CPU=avx512 (no AMX), avx2 or baseline
	mkdir -p build
	$(CC) -std=c11 -Wall -Wextra -Werror -O1 -shared -fPIC \
		-o build/mask_cpu.so tests/mask_cpu.c -ldl
	DIN_MASK_CPU=$(CPU) LD_PRELOAD=$(CURDIR)/build/mask_cpu.so $(PYTEST) $(TESTS)

test-arm64: $(VENV)/tested-with  ## operators, hashes and frozen models, in emulation
	VENV=$(VENV) nice .ci/arm64.sh

test-platforms: $(VENV)/tested-with  ## encoding on arm64 and s390x, in emulation
	VENV=$(VENV) .ci/platforms.sh

# What is freed stays in quarantine for a while, so how much is cannot be measured here;
# programs that link the library, or list its symbols, find the sanitizers' too.
NOT_SANITIZED = memory.py::test_what_waits_is_bounded $(EXPORTS) \
	c_abi.py::test_a_command_names_header_and_library \
	c_abi.py::test_an_example_prints_the_ids_of_python
# test_ops.py alone would be two thirds of this: one in OPS_SHARE of its cases is run,
# and files are shared out in parts.
OPS_SHARE ?= 3
sanitize: $(VENV)/tested-with  ## tests of all C under ASan and UBSan
	DIN_SANITIZE=1 $(BIN)/python setup.py --quiet build_ext \
		--build-lib build/sanitized --build-temp build/sanitized
	DIN_SANITIZE=1 DIN_TEST_BUILD=build/sanitized DIN_OPS_SHARE=$(OPS_SHARE) \
		ASAN_OPTIONS=detect_leaks=0 HYPOTHESIS_PROFILE=few LD_PRELOAD="$$($(CC) \
		-print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
		$(PYTEST) --dist worksteal -q -s tests/test_ops.py tests/test_c_abi.py tests/test_c_arrow.py \
		$(KERNEL_TESTS) $(addprefix --deselect=tests/test_,$(NOT_SANITIZED))

tsan:  ## 16 threads over the operators and the C interface, under ThreadSanitizer
	$(PYTHON) tests/host/threads.py

# Calls of score(), and Predictors made and dropped.
LEAK_CALLS ?= 1000000
LEAK_PREDICTORS ?= 2000
leaks: $(VENV)/tested-with  ## memory and open files after a million calls
	$(BIN)/python -m tests.leaks $(LEAK_CALLS) $(LEAK_PREDICTORS)

# Seconds of each target, and which of those that fuzz/run.py lists.
FUZZ_SECONDS ?= 3600
FUZZ_TARGETS ?= all
fuzz: $(INSTALLED)  ## inputs that nobody wrote, under ASan and UBSan: fuzz/run.py
	$(BIN)/python fuzz/run.py --seconds $(FUZZ_SECONDS) --jobs $(JOBS) $(FUZZ_TARGETS)

# Words for fuzz/faults.py, for example FAULTS="--commands din-score --faults kill disk".
FAULTS ?=
faults: $(INSTALLED)  ## every command under faults of the system: fuzz/faults.py
	$(BIN)/python fuzz/faults.py $(FAULTS)

# How many mutants, which draw, of which files (none named: of all).
MUTATION_SAMPLE ?= 200
MUTATION_SEED ?= 1
MUTATION_FILES ?=
mutation: $(VENV)/tested-with  ## changes to the C that no test notices: fuzz/mutation.py
	$(PIP) --group mutation
	$(BIN)/python fuzz/mutation.py --sample $(MUTATION_SAMPLE) --seed $(MUTATION_SEED) \
		$(MUTATION_FILES)

pages: $(VENV)/tested-with  ## pages of hostile values, opened in Chromium
	$(BIN)/python fuzz/pages.py

acceptance: $(INSTALLED)  ## train, convert and score real behaviors, where they are
ifneq ($(wildcard ../shared/data/beauty),)
	OMP_WAIT_POLICY=passive $(BIN)/python examples/demo.py --data ../shared/data/beauty \
		--out build/beauty --epochs 2 --min-auc 0.78 --min-gain 0.10
endif

doctests: $(VENV)/tested-with  ## the examples in docstrings
	$(BIN)/python -m pytest -q --doctest-modules din_infer converter/din_converter

lint: $(VENV)/linted-with  ## style, types, stubs, C warnings, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	for system in win32 darwin; do $(BIN)/mypy --platform $$system -p din_infer \
		--cache-dir .mypy_cache/$$system || exit 1; done
	MYPYPATH=. $(BIN)/stubtest --mypy-config-file pyproject.toml \
		--ignore-unused-allowlist --allowlist .ci/stubtest_allowlist din_infer._kernels
	PATH="$(BIN):$$PATH" cython-lint din_infer
	$(BIN)/clang-format --dry-run --Werror $(C_FILES)
	git ls-files | grep -v '^fuzz/seeds/' | xargs $(BIN)/codespell
	$(BIN)/zizmor --offline --quiet --min-severity medium .github
	$(BIN)/hadolint Dockerfile Dockerfile.gpu
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms \
		.github/ISSUE_TEMPLATE/[!c]*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	for line in "$(CC) -O1" "$$(command -v clang) -fsyntax-only"; do \
	case "$$line" in " "*) continue;; esac; \
	for file in $$(grep -o 'csrc/.*\.c\b' csrc/libraries.toml | sort -u); do $$line -std=c11 -Wall -Wextra -Wconversion \
		-Wshadow -Werror -Wno-psabi -Icsrc -c $$file -o /dev/null || exit 1; done; done

image:  ## for scoring on CPUs: docs/docker.md
	$(DOCKER) build --tag din-infer .

image-gpu:  ## for scoring on NVIDIA cards
	$(DOCKER) build --tag din-infer-gpu --file Dockerfile.gpu .

release: $(VENV)/packaged-with  ## whether VERSION=x.y.z can be released; RELEASE=--tag makes the tag
	$(BIN)/python .ci/release.py $(VERSION) $(RELEASE)

format: $(VENV)/linted-with
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_FILES)

wheels: $(VENV)/packaged-with  ## sdist, and wheels of PYTHONS, built and checked: dist/
	unset DIN_NVCC; $(BIN)/python .ci/wheels.py $(PYTHONS)
docs: $(VENV)/documented-with  ## the site in build/site; dead links and anchors fail
	$(BIN)/python docs/build_site.py

$(VENV)/made:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

$(INSTALLED): $(VENV)/made $(SOURCES)
	$(PIP) --editable ".[cpu,batch,convert]"
	touch $@

$(VENV)/fast-with: $(INSTALLED)
	$(PIP) --group test
	touch $@

$(VENV)/tested-with: $(INSTALLED)
	$(PIP) --group test-all
	touch $@ $(VENV)/fast-with

$(VENV)/linted-with: $(VENV)/tested-with
	$(PIP) --group lint
	touch $@

$(VENV)/packaged-with: $(INSTALLED)
	$(PIP) --group wheels
	touch $@

# All groups at once, so that pip resolves and installs once.
$(VENV)/all: $(VENV)/made $(SOURCES)
	$(PIP) --no-compile --editable ".[cpu,batch,convert]" --group test-all --group lint \
		--group wheels --group docs
	touch $(INSTALLED) $(addprefix $(VENV)/,fast-with tested-with linted-with \
		packaged-with documented-with) $@

$(VENV)/documented-with: $(INSTALLED)
	$(PIP) --group docs
	touch $@

.oldest: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --upgrade --target .oldest --no-deps $(OLDEST)
	touch $@

# What the client in Node needs; without it, and without Go or a JDK, the tests of clients
# in those languages are left out. Its own script would fetch libraries for CUDA.
build/clients/node_modules:
	mkdir -p build/clients
	npm install --prefix build/clients --ignore-scripts --no-audit --no-fund --silent \
		onnxruntime-node@1.30
	touch $@

clean:
	rm -rf build dist demo .venv .oldest *.egg-info din_infer/*.so din_infer/_kernels.c
