# make: build/moonport and build/moonport.so.  `make help` lists the rest.

B ?= build
PREFIX ?= /usr/local
LUA_CFLAGS := $(shell pkg-config --cflags lua5.4 2>/dev/null)
LUA_LIBS := $(shell pkg-config --libs lua5.4 2>/dev/null)
CFLAGS ?= -O2 -g
WARN = -Wall -Wextra -Wshadow -Wvla -Wmissing-prototypes
COMPILE = $(CC) -std=c11 -D_GNU_SOURCE -Ihost -fPIC -fvisibility=hidden -pthread \
  $(WARN) -MMD -MP $(LUA_CFLAGS) $(CFLAGS)
SANITIZE = -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer

SOURCES := $(wildcard host/*/*.c)
OBJECTS = $(SOURCES:host/%.c=$B/%.o)
LIBRARY = $(filter-out $B/cli/%,$(OBJECTS))
UNITS := $(wildcard spec/unit/*.c)
SPEC_TOOLS = $B/sys.so $B/shim.so $B/flood $B/unit
PACKAGES = gcc make pkg-config liblua5.4-dev lua5.4 lua-cjson lua-busted lua-check \
  clang-format strace python3-minimal netcat-openbsd curl redis-tools

all: $B/moonport $B/moonport.so ## build the program and the Lua module

$B/moonport: $(OBJECTS)
	$(COMPILE) -o $@ $^ $(LDFLAGS) $(LUA_LIBS) -lm

$B/moonport.so: $(LIBRARY)
	$(COMPILE) -shared -o $@ $^ $(LDFLAGS) -lm

$B/%.o: host/%.c
	@mkdir -p $(@D)
	$(COMPILE) -c -o $@ $<

# What the specs run beside the program: see the head of each file in spec/support.
$B/sys.so: spec/support/sys.c
	@mkdir -p $(@D)
	$(COMPILE) -shared -o $@ $<

$B/shim.so: spec/support/shim.c
	@mkdir -p $(@D)
	$(CC) -std=c11 -D_GNU_SOURCE -fPIC -shared $(WARN) -O2 -o $@ $< -ldl

$B/flood: spec/support/flood.c
	@mkdir -p $(@D)
	$(CC) -std=c11 -D_GNU_SOURCE $(WARN) -O2 -o $@ $<

$B/unit: $(UNITS) $(LIBRARY)
	$(COMPILE) -Ispec/unit -o $@ $(filter %.c %.o,$^) $(LDFLAGS) $(LUA_LIBS) -lm

-include $(OBJECTS:.o=.d)

tools: all $(SPEC_TOOLS)

.PHONY: all tools
