# make: build/moonport and build/moonport.so.  `make help` lists the rest.

B ?= build
PREFIX ?= /usr/local
LUA_CFLAGS := $(shell pkg-config --cflags lua5.4 2>/dev/null)
# Lua itself goes into the program, as into lua5.4: calls are direct, and C modules find it there.
LUA_ARCHIVE := $(wildcard $(shell pkg-config --variable=libdir lua5.4 2>/dev/null)/liblua5.4.a)
# Such a small part of it is needed that it goes in as well.
URING_LIBS := $(or $(wildcard $(shell pkg-config --variable=libdir liburing 2>/dev/null)/liburing.a),-luring)
LUA_LIBS := $(if $(LUA_ARCHIVE),-rdynamic $(LUA_ARCHIVE) -ldl,$(shell pkg-config --libs lua5.4 2>/dev/null))
CFLAGS ?= -O2 -g -flto=auto -fno-plt
# Symbols are looked up once, not in each forked child.
LDFLAGS ?= -Wl,-z,now
WARN = -Wall -Wextra -Wshadow -Wvla -Wmissing-prototypes
COMPILE = $(CC) -std=c11 -D_GNU_SOURCE -Ihost -fPIC -fvisibility=hidden -pthread \
  $(WARN) -MMD -MP $(LUA_CFLAGS) $(CFLAGS)
SANITIZE = -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer

FUZZERS = framing http
RUNS ?= 100000
SCARCE = malloc calloc realloc aligned_alloc strdup strndup asprintf alloc_realloc

SOURCES := $(wildcard host/*/*.c)
OBJECTS = $(SOURCES:host/%.c=$B/%.o)
LIBRARY = $(filter-out $B/cli/%,$(OBJECTS))
UNITS := $(wildcard spec/unit/*.c)
# The longest first.
LONG_SPECS = $(patsubst %,spec/%_spec.lua,slice watch allocation pattern workers threading forking generation handover)
ALL_SPECS = $(LONG_SPECS) $(filter-out $(LONG_SPECS),$(wildcard spec/*_spec.lua))
SPEC_TOOLS = $B/sys.so $B/burn.so $B/shim.so $B/clock.so $B/scarce.so $B/flood $B/visit $B/unit
PACKAGES = gcc make pkg-config liblua5.4-dev liburing-dev libssl-dev lua5.4 lua-cjson lua-busted lua-check \
  clang-format strace netcat-openbsd curl redis-tools python3 python3-pytest nodejs \
  swaks bind9-dnsutils postgresql-client libmemcached-tools valgrind

all: $B/moonport $B/moonport.so ## build the program and the Lua module

$B/moonport: $(filter-out $B/module/%,$(OBJECTS))
	$(COMPILE) -o $@ $^ $(LDFLAGS) $(LUA_LIBS) $(URING_LIBS) -lm

# Threads of a server that was started may outlive the Lua state: the code stays.
$B/moonport.so: $(LIBRARY)
	$(COMPILE) -shared -o $@ $^ $(LDFLAGS) -Wl,-z,nodelete $(URING_LIBS) -lm

$B/%.o: host/%.c
	@mkdir -p $(@D)
	$(COMPILE) -c -o $@ $<

# What the specs run beside the program: see the head of each file in spec/support.
$B/sys.so $B/burn.so: $B/%.so: spec/support/%.c
	@mkdir -p $(@D)
	$(CC) -std=c11 -D_GNU_SOURCE -fPIC -shared $(WARN) -O2 $(LUA_CFLAGS) -o $@ $<

$B/shim.so $B/clock.so: $B/%.so: spec/support/%.c
	@mkdir -p $(@D)
	$(CC) -std=c11 -D_GNU_SOURCE -fPIC -shared $(WARN) -O2 -o $@ $< -ldl

# What bench/guard.py runs the program with.
$B/fixed.so: bench/guard/fixed.c
	@mkdir -p $(@D)
	$(CC) -std=c11 -D_GNU_SOURCE -fPIC -shared $(WARN) -O2 -o $@ $<

$B/scarce.so: spec/support/scarce.c
	@mkdir -p $(@D)
	$(CC) -std=c11 -D_GNU_SOURCE -fPIC -shared $(WARN) -O2 -o $@ $<

$B/flood $B/visit: $B/%: spec/support/%.c
	@mkdir -p $(@D)
	$(CC) -std=c11 -D_GNU_SOURCE $(WARN) -O2 -o $@ $<

$B/fuzz-%: spec/fuzz/fuzz.c $(LIBRARY)
	$(COMPILE) -DTARGET='"$*"' -fsanitize=fuzzer -o $@ $^ $(LDFLAGS) $(LUA_LIBS) $(URING_LIBS) -lm

$B/unit: $(UNITS) $(LIBRARY)
	$(COMPILE) -Ispec/unit -o $@ $(filter %.c %.o,$^) $(LDFLAGS) $(LUA_LIBS) $(URING_LIBS) -lm

-include $(OBJECTS:.o=.d)

tools: all $(SPEC_TOOLS)

run: deps ## install what is missing, build, and serve scripts/upper.lua on port 9999
	@$(MAKE) --no-print-directory -s all
	./$B/moonport serve scripts/upper.lua

test: deps ## install what is missing, build, and run every spec
	@$(MAKE) --no-print-directory -s tools
	MOONPORT_BUILD=$B spec/support/specs.sh './$B/?.so' $(or $(SPECS),$(ALL_SPECS))

asan: deps ## the same under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(MAKE) --no-print-directory -s tools B=build-asan CFLAGS='$(SANITIZE)'
	MOONPORT_BUILD=build-asan \
	  ASAN_OPTIONS=abort_on_error=1:detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1 \
	  JOBS=2 spec/support/specs.sh './build-asan/?.so' $(or $(SPECS),$(ALL_SPECS))

tsan: deps ## the specs of threads under ThreadSanitizer
	@$(MAKE) --no-print-directory -s tools B=build-tsan CFLAGS='-O1 -g -fsanitize=thread -fno-omit-frame-pointer'
	MOONPORT_BUILD=build-tsan \
	  busted --cpath='./build-tsan/?.so' $(or $(SPECS),spec/race_spec.lua)

scarce: deps ## spec/allocation_spec.lua with every allocation failing, Lua's one by one, under ASan
	@mkdir -p build-scarce
	$(CC) -std=c11 -D_GNU_SOURCE -fPIC $(WARN) -g -DSCARCE_WRAP -c -o build-scarce/scarce.o spec/support/scarce.c
	@$(MAKE) --no-print-directory -s tools B=build-scarce CFLAGS='$(SANITIZE)' \
	  LDFLAGS='-Wl,-z,now $(SCARCE:%=-Wl,--wrap=%) build-scarce/scarce.o'
	MOONPORT_BUILD=build-scarce ASAN_OPTIONS=abort_on_error=1:detect_leaks=1 \
	  busted --cpath='./build-scarce/?.so' $(or $(SPECS),spec/allocation_spec.lua)

# Leaks are not looked for: Lua's garbage would count.  What is found beyond spec/fuzz/corpus
# stays in build-fuzz/corpus, an input that fails in build-fuzz.
fuzz: deps ## feed RUNS=100000 made-up inputs to each of FUZZERS, under ASan and UBSan
	@.ci/deps clang libclang-rt-14-dev
	@$(MAKE) --no-print-directory -s $(FUZZERS:%=build-fuzz/fuzz-%) B=build-fuzz CC=clang \
	  CFLAGS='$(SANITIZE) -O2 -fsanitize=fuzzer-no-link -fno-sanitize-coverage=trace-cmp'
	@set -e; for target in $(FUZZERS); do \
	  mkdir -p build-fuzz/corpus/$$target; \
	  build-fuzz/fuzz-$$target -runs=$(RUNS) -max_len=400 -timeout=10 -detect_leaks=0 -entropic=0 -print_final_stats=1 \
	    -dict=spec/fuzz/$$target.dict -artifact_prefix=build-fuzz/$$target- \
	    build-fuzz/corpus/$$target spec/fuzz/corpus/$$target; \
	done

BENCH_TOOLS = $B/bench/load $B/bench/limit
PEERS = python3 nodejs lua-luv lua-cqueues lua5.1 lua-copas haproxy nginx-light libnginx-mod-http-lua \
  redis-server redis-tools wrk

tools: $(BENCH_TOOLS)

$(BENCH_TOOLS): $B/bench/%: bench/%.c bench/url.h
	@mkdir -p $(@D)
	$(CC) -std=c11 -D_GNU_SOURCE $(WARN) -O2 -o $@ $<

# ROUNDS=7 MINUTES=15 WORKLOADS=echo64,conn SERVERS=epoll,moonport; BENCH='--cpus 2,3 --add' for more.
bench: deps ## measure beside the raw limit and other servers, for MINUTES=15 at most: build/bench/results.md
	@.ci/deps $(PEERS) || echo "The peers that are missing are left out."
	@$(MAKE) --no-print-directory -s all $(BENCH_TOOLS)
	bench/run.py --build $B $(ROUNDS:%=--rounds %) $(MINUTES:%=--minutes %) \
	  $(WORKLOADS:%=--workloads %) $(SERVERS:%=--servers %) $(BENCH)

bench-axes: deps ## what a request costs as connections, sizes, timers, scripts and reloads grow: build/bench/axes.md
	@$(MAKE) --no-print-directory -s all $(BENCH_TOOLS)
	bench/axes.py --build $B $(ROUNDS:%=--rounds %) $(MINUTES:%=--minutes %) $(AXES:%=--axes %) $(BENCH)

bench-docs: ## put what these two measured into docs/performance.md
	bench/docs.py $B/bench docs

check: deps ## formatting, luacheck, and that includes go down the floors
	clang-format --dry-run --Werror host/*/*.[ch] bench/*.[ch] bench/guard/*.c
	luacheck --quiet lua scripts spec bench
	lua5.4 spec/support/floors.lua

# PATHS='udp "mock of"' measures those alone; RECORD=1 writes bench/guard.json.
bench-guard: deps ## compare what requests cost, in instructions, with bench/guard.json (RECORD=1 writes it)
	@$(MAKE) --no-print-directory -s all $B/fixed.so
	@CC='$(CC)' GUARD_FLAGS='$(CFLAGS)' python3 bench/guard.py --build $B $(if $(RECORD),--record) $(PATHS)

install: all ## into $(PREFIX), or DESTDIR$(PREFIX)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/lua/5.4
	install -m 755 $B/moonport $(DESTDIR)$(PREFIX)/bin/
	install -m 644 $B/moonport.so $(DESTDIR)$(PREFIX)/lib/lua/5.4/
	cd lua && find moonport -name '*.lua' -exec install -D -m 644 {} $(abspath $(DESTDIR)$(PREFIX))/share/lua/5.4/{} \;

deps: ## install the Debian packages that are missing
	@.ci/deps $(PACKAGES)

clean: ## remove what was built
	rm -rf build build-asan build-tsan build-scarce build-fuzz

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /  make \1\t/p' Makefile | expand -t 20

.PHONY: all tools run test asan tsan scarce fuzz bench bench-axes bench-docs bench-guard check install deps clean help
