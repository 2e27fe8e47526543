# Thin on purpose: cmake/build.sh builds, tests/run.py tests, CMakePresets.json has the variants.
MODEL ?=
ARGS ?=
# An up-to-date build is recognised by make alone, so that a second `make run` starts at once.
READY := build/.ready
SOURCES := $(shell find CMakeLists.txt CMakePresets.json cmake deps src models/starter \
	web -path web/node_modules -prune -o -type f -print 2>/dev/null)

help: ## this list
	@echo "Mysti: text and pictures from one machine, on one port."
	@echo
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1 \2/p' $(MAKEFILE_LIST) | \
		while read -r target words; do printf '  make %-12s %s\n' "$$target" "$$words"; done
	@echo
	@echo "  make run MODEL=file.gguf     serve that model instead of the starter models"
	@echo "  make run ARGS='--verbose'    any option of mysti_server"

run: $(READY) ## fetch what is missing, build, serve on http://localhost:1234
	@exec build/bin/mysti_server $(if $(MODEL),--model "$(MODEL)") $(ARGS)

build: $(READY) ## fetch what is missing and build into build/bin

$(READY): $(SOURCES)
	@cmake/build.sh
	@touch $@

test: ## build and run every test; the last line is the sum
	@deps/system.sh test
	@cmake/build.sh
	@touch $(READY)
	@tests/run.py

test-quick: ## unit tests alone
	@cmake/build.sh
	@tests/run.py unit

bench: $(READY) ## the measurements of docs/bench.md, as far as the compared programs are here
	@tests/bench/run.py

chaos: ## kill workers and server 200 times each, under load, with scripted workers and the real engines; 2,000 jobs in too little memory
	@cmake/build.sh
	@MYSTI_CHAOS_WORKER_KILLS=200 MYSTI_CHAOS_SERVER_KILLS=200 MYSTI_CHAOS_JOBS=2000 tests/run.py chaos

fuzz: ## ten minutes on each fuzz target
	@tests/run.py fuzz --seconds 600

refresh: ## fetch the private prefixes again (kept when the archive does not answer)
	@deps/fetch.sh --refresh

format: ## clang-format on our own code
	@git ls-files 'src/*.[ch]' 'tests/*.[ch]' | xargs clang-format -i

lint: ## clang-tidy and cppcheck
	@tests/lint.sh

clean: ## remove what was built (the prefixes stay; 'make distclean' takes them too)
	@rm -rf build build-asan build-tsan build-fuzz build-debug

distclean: clean ## also remove the private prefixes and node_modules
	@rm -rf .deps web/node_modules tests/node_modules

.PHONY: help run build test test-quick bench chaos fuzz refresh format lint clean distclean
.DEFAULT_GOAL := help
