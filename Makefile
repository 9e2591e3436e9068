# What a person types. The work is done in scripts/kennel_launch; `make` alone lists the targets.

# What people write into a variable reaches a command as it stands. make itself would expand a dollar sign, so the value
# is taken unexpanded; the shell would run what stands in backticks, so recipes read it from the environment, "$$DATA".
VALUES = DATA OUT HP PRETRAINED GPUS SPACE TRIALS SEARCH MINUTES FRESH MODEL PORT WEIGHTS IMAGE BASE_IMAGE \
	SERVE_IMAGE SERVE_BASE_IMAGE TO ARGS PARTS ROUNDS PAIRS FAMILIES
$(foreach name,$(VALUES),$(if $(filter command environment,$(firstword $(origin $(name)))),\
	$(eval override $(name) := $$(value $(name)))))
# Tests start makes of their own.
WITHOUT_VALUES = env $(foreach name,$(VALUES) TUNE_OUT,-u $(name))

VENV ?= build/venv
VENV_LAUNCH ?= build/venv-launch
VENV_SDK_V3 ?= build/venv-sdk-v3
VENV_DEMO ?= build/venv-demo
DOCKER ?= docker
BASE_IMAGE ?= nvidia/cuda:12.8.1-base-ubuntu24.04
SERVE_BASE_IMAGE ?= ubuntu:24.04
SERVE_IMAGE ?= kennel:serve-cpu
PORT ?= 8080
TUNE_OUT := $(or $(OUT),build/tune)
OUT ?= build/local
MODEL ?= $(OUT)/model
STARTED := $(shell date +%s)
COMMANDS = upload train tune deploy invoke transform status logs report register pipeline delete
# `make train` with DATA alone is no command for AWS.
HERE := $(if $(DATA),$(if $(ARGS),,train))

# IMAGE has a default for what is built, but `make demo`, `train` and `tune-local` take docker only where the user names one.
DEMO_IMAGE := $(IMAGE)
DEMO_ENV = $(if $(DEMO_IMAGE),$(VENV_DEMO),$(VENV))
IMAGE ?= kennel:dev
export $(VALUES) TUNE_OUT

# The first Python that runs and is of a version we know (a pyenv shim can be there and fail).
KNOWN_PYTHON = import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))
ifeq ($(origin PYTHON),undefined)
PYTHON := $(shell for p in python3.11 python3.12 python3; do \
	"$$p" -c '$(KNOWN_PYTHON)' 2>/dev/null && { echo "$$p"; break; }; done)
endif
NEEDS_PYTHON = "$(PYTHON)" -c '$(KNOWN_PYTHON)' 2>/dev/null || { \
	echo "Kennel needs Python 3.11 or 3.12, and $(or $(PYTHON),what is on PATH) is neither: set PYTHON=python3.11" >&2; exit 1; }
NEEDS_VENV = "$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
	echo "$(PYTHON) has no venv module: install it (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
HAS_HEADERS = import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))
NEEDS_GCC = { command -v gcc >/dev/null || command -v cc >/dev/null; } && "$(PYTHON)" -c '$(HAS_HEADERS)' || { \
	echo "sagemaker-training is compiled at its installation: install gcc and Python's headers" \
	"(Debian, Ubuntu: apt-get install gcc libc6-dev python3-dev)" >&2; exit 1; }
# Run from the checkout, before or without an installation.
OURS = PYTHONPATH="$(CURDIR)/scripts:$(CURDIR)/container" DOCKER="$(DOCKER)"
# $(call INSTALL,environment,locks): pip's thousand lines go into a log, which is shown where it fails. Bytecode is made
# of what is imported, when it is: of all it takes a third of the time.
INSTALL = @echo "installing $(2) into $(1)"; \
	$(1)/bin/python -m pip install --disable-pip-version-check --no-compile --require-hashes --no-deps $(addprefix -r ,$(2)) \
		> $(1)/pip.log 2>&1 || { cat $(1)/pip.log >&2; echo "pip failed, its log is $(1)/pip.log" >&2; exit 1; }
# As many tests at a time as JOBS says; the tests of a module stay together, with the fixtures that they share.
JOBS ?= 2
# Exit code 5 is pytest's word for a folder without tests.
PYTEST = bin/python -m pytest
AT_ONCE = -n $(JOBS) --dist worksteal
NO_TESTS = || [ $$? -eq 5 ]
# Tests that start no job and no server.
UNITS = tests/container tests/docker $(addprefix tests/train/,contract data debug/rules debug/smdebug engine measure model report search) \
	$(addprefix tests/serve/,formats inference)

.PHONY: help demo venv build build-serve-cpu launch push train train-local tune-local serve-local test test-core test-gpu test-launch test-image test-other \
	test-fast soak bench-train bench-tune bench-debug bench-serve check check-arm check-backbones lock docs clean .data .data-named $(COMMANDS)

help: ## this list
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

##@ Try it (no AWS, no GPU)
demo: .data $(DEMO_ENV)/.ready ## train and serve sample photos here [DATA=folder] [IMAGE=name: by docker run]
	@$(OURS) $(DEMO_ENV)/bin/python -m kennel_launch.make.demo --started $(STARTED) \
		$(if $(DATA),--data "$$DATA") $(if $(DEMO_IMAGE),--image "$$IMAGE") $(if $(GPUS),--gpus "$$GPUS")

##@ The image
build: ## build IMAGE [BASE_IMAGE=name] [WEIGHTS=folder of <backbone>.safetensors or .pth to bake in]
	@$(NEEDS_PYTHON)
	@$(OURS) "$(PYTHON)" -m kennel_launch.make.build "$$IMAGE" --base-image "$$BASE_IMAGE" $(if $(WEIGHTS),--weights "$$WEIGHTS")

build-serve-cpu: ## build SERVE_IMAGE, slim: it only serves, on CPUs, without torch [SERVE_BASE_IMAGE=name]
	@$(NEEDS_PYTHON)
	@$(OURS) "$(PYTHON)" -m kennel_launch.make.build "$$SERVE_IMAGE" --target serve-cpu --base-image "$$SERVE_BASE_IMAGE"

train-local: .data-named .data ## train in IMAGE: DATA=folder [GPUS=all] [OUT=folder] [PRETRAINED=folder] [HP='epochs=5 ...']
	@$(NEEDS_PYTHON)
	@$(OURS) "$(PYTHON)" -m kennel_launch.make.local train --image "$$IMAGE" --data "$$DATA" --out "$$OUT" \
		--gpus "$$GPUS" --hyperparameters "$$HP" $(if $(PRETRAINED),--pretrained "$$PRETRAINED")

ifdef HERE
train: .data $(DEMO_ENV)/.ready ## train here, without Docker: DATA=folder [HP='epochs=5 ...'] [OUT=folder] [PRETRAINED=folder] [IMAGE=name: by docker run]; with ARGS on SageMaker
	@$(OURS) $(DEMO_ENV)/bin/python -m kennel_launch.make.local train --data "$$DATA" --out "$$OUT" --hyperparameters "$$HP" \
		$(if $(DEMO_IMAGE),--image "$$IMAGE") $(if $(GPUS),--gpus "$$GPUS") $(if $(PRETRAINED),--pretrained "$$PRETRAINED")
endif

tune-local: .data-named .data $(DEMO_ENV)/.ready ## search hyperparameters here: DATA=folder [IMAGE=name: by docker run] [TRIALS=20] [SEARCH=tpe] [SPACE='...'] [MINUTES=60] [FRESH=1]
	@$(OURS) $(DEMO_ENV)/bin/python -m kennel_launch.cli tune --local --data "$$DATA" --out "$$TUNE_OUT" \
		--hyperparameters "$$HP" $(if $(DEMO_IMAGE),--image "$$IMAGE") $(if $(GPUS),--gpus "$$GPUS") \
		$(if $(PRETRAINED),--pretrained "$$PRETRAINED") $(if $(TRIALS),--trials "$$TRIALS") \
		$(if $(SEARCH),--search "$$SEARCH") $(if $(SPACE),--search-space "$$SPACE") \
		$(if $(MINUTES),--time-budget "$$MINUTES") $(if $(FRESH),--fresh)

serve-local: ## serve a trained model from IMAGE [MODEL=folder] [PORT=8080] [GPUS=all]
	@$(NEEDS_PYTHON)
	@$(OURS) "$(PYTHON)" -m kennel_launch.make.local serve --image "$$IMAGE" --model "$$MODEL" --port "$$PORT" --gpus "$$GPUS"

##@ On SageMaker (also: make upload|train|tune|deploy|invoke|transform|status|logs|report|register|pipeline|delete ARGS='...')
launch: $(VENV_LAUNCH)/.ready ## the `kennel` command for AWS, in an environment without torch: build/venv-launch/bin/kennel
	@echo "$(VENV_LAUNCH)/bin/kennel --help"

push: $(VENV_LAUNCH)/.ready ## tag IMAGE and push it, to ECR or any registry: TO=host/name[:tag]
	@[ -n "$$TO" ] || { echo "say where to: make push TO=host/name[:tag]" >&2; exit 1; }
	@DOCKER="$(DOCKER)" $(VENV_LAUNCH)/bin/kennel push "$$IMAGE" --to "$$TO"

$(filter-out $(HERE),$(COMMANDS)): $(VENV_LAUNCH)/.ready
	@$(OURS) "$(VENV_LAUNCH)/bin/python" -m kennel_launch.make.arguments "$(VENV_LAUNCH)/bin/kennel" $@

##@ Work on it
venv: $(VENV)/.ready ## the environment of the image, here (3 GB)

test: $(VENV)/.test $(VENV_LAUNCH)/.test $(VENV_SDK_V3)/.ready ## everything that this machine can run; all parts, even when one fails
	@# The image's tests run one by one, all the while beside the others, so that no core is idle at the end.
	@log=$$(mktemp); $(MAKE) --no-print-directory test-image > $$log 2>&1 & image=$$!; \
	$(MAKE) --no-print-directory --keep-going test-core test-launch test-other; others=$$?; \
	wait $$image; image=$$?; cat $$log; rm $$log; [ $$others -eq 0 ] && [ $$image -eq 0 ]

test-core: $(VENV)/.test $(VENV_SDK_V3)/.ready ## ... the core, training, serving, the image's entry point
	$(WITHOUT_VALUES) $(VENV)/$(PYTEST) $(AT_ONCE) $(wildcard tests/container tests/train tests/serve tests/docker tests/gpu) $(NO_TESTS)

test-gpu: $(VENV)/.test ## ... what only an NVIDIA GPU can show: training and serving on it, and its benchmark
	$(VENV)/$(PYTEST) tests/gpu
	$(VENV)/bin/python tests/bench/gpu.py

test-launch: $(VENV_LAUNCH)/.test $(VENV_SDK_V3)/.ready ## ... the commands
	$(WITHOUT_VALUES) $(OURS) $(VENV_LAUNCH)/$(PYTEST) $(AT_ONCE) $(wildcard tests/launch) $(NO_TESTS)

test-image: $(VENV_LAUNCH)/.test $(VENV_SDK_V3)/.ready ## ... the image, where a docker engine answers; one by one: each looks at what the others left
	$(WITHOUT_VALUES) $(OURS) IMAGE="$$IMAGE" BASE_IMAGE="$$BASE_IMAGE" SERVE_IMAGE="$$SERVE_IMAGE" SERVE_BASE_IMAGE="$$SERVE_BASE_IMAGE" \
		$(VENV_LAUNCH)/$(PYTEST) $(wildcard tests/image) $(NO_TESTS)

test-fast: $(VENV)/.test ## ... what starts no job and no server: after each edit, in two minutes
	$(WITHOUT_VALUES) $(VENV)/$(PYTEST) $(AT_ONCE) -m "not slow" $(wildcard $(UNITS)) $(NO_TESTS)

test-other: $(VENV)/.ready ## ... test-fast under the other Python, 3.12 or 3.11, where it is installed
	@other=$$($(VENV)/bin/python -c 'import sys; print("3.11" if sys.version_info[1] == 12 else "3.12")'); \
	for p in "python$$other" "$$HOME"/.pyenv/versions/"$$other".*/bin/python; do \
		"$$p" -c 'import ensurepip' 2>/dev/null || continue; \
		exec $(MAKE) --no-print-directory test-fast VENV="build/venv$$other" PYTHON="$$p" LIKE="$(VENV)"; \
	done; echo "Python $$other: skipped, no python$$other with ensurepip runs here"

soak: $(VENV)/.test ## ... what `make test` does shortly, in full: jobs killed, half an hour of load, mutated requests
	$(WITHOUT_VALUES) KENNEL_KILLS=10 $(VENV)/$(PYTEST) tests/train/test_restart.py
	$(WITHOUT_VALUES) KENNEL_MUTATIONS=10000 $(VENV)/$(PYTEST) -s tests/serve/http/test_mutations.py
	$(WITHOUT_VALUES) KENNEL_SOAK_SECONDS=1800 $(VENV)/$(PYTEST) -s tests/serve/test_soak.py

bench-train: $(VENV)/.ready ## training beside the classic torchvision loop [PARTS='input probe_epoch probe_job stop accuracy gpu']
	$(VENV)/bin/python tests/bench/train.py $$PARTS

bench-tune: $(VENV)/.ready ## a search of 20 trials in one job beside one trial, and beside 20 jobs [ROUNDS=3]
	$(VENV)/bin/python tests/bench/tune.py $(if $(ROUNDS),--rounds "$$ROUNDS")

bench-debug: $(VENV)/.ready ## what rules and profiler add to a training step [PAIRS=220]
	$(VENV)/bin/python tests/bench/debug.py $(if $(PAIRS),--pairs "$$PAIRS")

bench-serve: $(VENV)/.bench ## the endpoint beside the stock stack, FastAPI, LitServe [PARTS='cold resnet50 lite0 large health'] [ROUNDS=3]
	$(VENV)/bin/python tests/bench/serve.py $$PARTS $(if $(ROUNDS),--rounds "$$ROUNDS")

check: $(VENV)/.test ## lint, format, types, import order, the tables in docs/, no host names in the locks
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python -m kennel_launch.make.docs --check
	@! grep -nE '://|^ *--(index|extra-index|find-links)' requirements/*.txt

check-arm: build/uv/.ready ## whether the slim image's packages all exist for arm64 (asks the package index, installs nothing)
	build/uv/bin/uv pip install --dry-run --python "$(PYTHON)" --target build/arm64 --no-deps --require-hashes --python-version 3.12 \
		--python-platform aarch64-manylinux_2_39 --only-binary :all: --no-binary sagemaker-inference -r requirements/serve.txt

check-backbones: $(VENV)/.ready ## an hour: one backbone of every family is trained and exported, at its own size and at 224 [FAMILIES='timm/levit ...']
	$(VENV)/bin/python tests/bench/backbones.py $$FAMILIES

docs: $(VENV)/.ready ## write the tables in docs/ from the code
	$(VENV)/bin/python -m kennel_launch.make.docs

LOCK = build/uv/bin/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --no-annotate $(if $(UPGRADE),--upgrade)
LOCK_GROUP = $(LOCK) --universal --python-version 3.11 pyproject.toml
SERVE_EXCLUDES = scipy boto3 retrying future model-archiver protobuf flatbuffers packaging
lock: build/uv/.ready ## pin pyproject.toml's groups into requirements/*.txt, with hashes [UPGRADE=1: newest versions]
	$(LOCK_GROUP) --extra image -o requirements/image.txt
	printf '%s\n' $(SERVE_EXCLUDES) | $(LOCK_GROUP) --extra serve -c requirements/image.txt --excludes - -o requirements/serve.txt
	$(LOCK_GROUP) --extra launch -o requirements/launch.txt
	$(LOCK_GROUP) --extra sdk-v2 -c requirements/launch.txt -o requirements/sdk-v2.txt
	$(LOCK_GROUP) --extra sdk-v3 -o requirements/sdk-v3.txt
	$(LOCK_GROUP) --extra demo -c requirements/image.txt -c requirements/sdk-v2.txt -o requirements/demo.txt
	$(LOCK_GROUP) --extra npm -o requirements/npm.txt
	$(LOCK_GROUP) --extra test -c requirements/image.txt -c requirements/sdk-v2.txt -c requirements/demo.txt -o requirements/test.txt
	$(LOCK_GROUP) --extra emulated -c requirements/sdk-v2.txt -c requirements/test.txt -o requirements/emulated.txt
	$(LOCK_GROUP) --extra walkthrough -c requirements/sdk-v2.txt -c requirements/test.txt -c requirements/emulated.txt -c requirements/demo.txt -o requirements/walkthrough.txt
	$(LOCK_GROUP) --extra bench -c requirements/image.txt -c requirements/sdk-v2.txt -c requirements/demo.txt -c requirements/test.txt -o requirements/bench.txt
	echo smdebug==1.0.34 | $(LOCK) --no-deps - -o requirements/smdebug.txt

clean: ## remove everything that was made here: environments, scratch folders, models
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info

.data-named:
	@[ -n "$$DATA" ] || { echo "say where the photos are: make $(firstword $(MAKECMDGOALS)) DATA=folder" >&2; exit 1; }

.data: # before gigabytes are fetched
	@[ -z "$$DATA" ] || [ -d "$$DATA" ] || { \
		printf '%s\n' "DATA=$$DATA is no folder: give one that holds <class>/*.jpg, or train/<class>/*.jpg beside val/ or test/" >&2; exit 1; }

# The environments. A stamp says that one is whole; an interrupted installation goes on where it stopped.
$(VENV)/.ready: requirements/image.txt requirements/demo.txt requirements/smdebug.txt pyproject.toml
	@$(NEEDS_PYTHON)
	@$(NEEDS_VENV)
	@$(NEEDS_GCC)
	@echo "making $(VENV): about 3 GB are downloaded and unpacked, once, in some minutes"
	@"$(PYTHON)" -m venv $(VENV)
	@# CUDA's libraries are the same under every Python, and half of it all: not fetched and kept twice
	$(if $(LIKE),[ -d $(VENV)/lib/python3.*/site-packages/nvidia ] || cp -al $(LIKE)/lib/python3.*/site-packages/nvidia \
		$(LIKE)/lib/python3.*/site-packages/nvidia_*_cu12-*.dist-info $(VENV)/lib/python3.*/site-packages/)
	$(call INSTALL,$(VENV),requirements/image.txt requirements/demo.txt)
	$(call INSTALL,$(VENV),requirements/smdebug.txt)
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check --no-build-isolation --no-deps -e .
	@$(VENV)/bin/python -m kennel_serve.java_cache
	@touch $@

$(VENV)/.test: $(VENV)/.ready requirements/test.txt
	$(call INSTALL,$(VENV),requirements/test.txt)
	@touch $@

$(VENV)/.bench: $(VENV)/.ready requirements/bench.txt
	$(call INSTALL,$(VENV),requirements/bench.txt)
	@touch $@

$(VENV_LAUNCH)/.ready: requirements/launch.txt
	@$(NEEDS_PYTHON)
	@$(NEEDS_VENV)
	@"$(PYTHON)" -m venv $(VENV_LAUNCH)
	$(call INSTALL,$(VENV_LAUNCH),requirements/launch.txt)
	@printf '#!%s\nimport sys\n\nsys.path[:0] = ["%s/scripts", "%s/container"]\nfrom kennel_launch.cli import main\n\nsys.exit(main())\n' \
		"$(abspath $(VENV_LAUNCH))/bin/python" "$(CURDIR)" "$(CURDIR)" > $(VENV_LAUNCH)/bin/kennel
	@chmod +x $(VENV_LAUNCH)/bin/kennel
	@touch $@

$(VENV_LAUNCH)/.test: $(VENV_LAUNCH)/.ready requirements/sdk-v2.txt requirements/test.txt requirements/emulated.txt requirements/walkthrough.txt
	$(call INSTALL,$(VENV_LAUNCH),requirements/sdk-v2.txt requirements/test.txt requirements/emulated.txt requirements/walkthrough.txt)
	@touch $@

$(VENV_SDK_V3)/.ready: requirements/sdk-v3.txt
	@$(NEEDS_PYTHON)
	@$(NEEDS_VENV)
	@"$(PYTHON)" -m venv $(VENV_SDK_V3)
	$(call INSTALL,$(VENV_SDK_V3),requirements/sdk-v3.txt)
	@touch $@

$(VENV_DEMO)/.ready: requirements/demo.txt
	@$(NEEDS_PYTHON)
	@$(NEEDS_VENV)
	@"$(PYTHON)" -m venv $(VENV_DEMO)
	$(call INSTALL,$(VENV_DEMO),requirements/demo.txt)
	@touch $@

build/uv/.ready:
	@$(NEEDS_PYTHON)
	@$(NEEDS_VENV)
	"$(PYTHON)" -m venv build/uv
	build/uv/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@touch $@
