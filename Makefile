# make: build/moonport and build/moonport.so.  `make help` lists the rest.

B ?= build
PREFIX ?= /usr/local
CC ?= gcc
LUA ?= lua5.4
CFLAGS ?= -O2 -g
LUA_CFLAGS := $(shell pkg-config --cflags lua5.4 2>/dev/null)
LUA_LIBS := $(shell pkg-config --libs lua5.4 2>/dev/null)
ALL_CFLAGS = -std=c11 -D_GNU_SOURCE -Ihost -fPIC -fvisibility=hidden -pthread \
  -Wall -Wextra -Wshadow -Wvla -Wmissing-prototypes -MMD -MP $(LUA_CFLAGS) $(CFLAGS)
SANITIZE = -fsanitize=address,undefined -fno-omit-frame-pointer

SOURCES := $(wildcard host/*/*.c)
OBJECTS = $(SOURCES:host/%.c=$(B)/%.o)
MODULE = $(filter-out $(B)/cli/%,$(OBJECTS))
SUPPORT := $(wildcard spec/support/*.c)
SPEC_TOOLS = $(B)/sys.so $(B)/flood $(B)/shim.so $(B)/unit

all: $(B)/moonport $(B)/moonport.so

$(B)/moonport: $(OBJECTS)
	$(CC) $(ALL_CFLAGS) -Wl,-E -o $@ $^ $(LDFLAGS) $(LUA_LIBS) -lm

$(B)/moonport.so: $(MODULE)
	$(CC) $(ALL_CFLAGS) -shared -o $@ $^ $(LDFLAGS) -lm

$(B)/%.o: host/%.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -c -o $@ $<

-include $(OBJECTS:.o=.d)

.PHONY: all
