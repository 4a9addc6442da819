# baton: one non-recursive Makefile. `make help` lists the targets.
#
# Everything is built below $(BUILD). Variables: DEV=1 (warnings are errors), SAN=address,undefined
# (its own build folder), CC, PREFIX, DESTDIR, SECONDS (make run), JOBS (tests side by side).

VERSION := 0.1.0
PREFIX  ?= /usr/local
DESTDIR ?=
BINDIR  ?= $(PREFIX)/bin
LIBDIR  ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR  ?= $(PREFIX)/share/man
DATADIR ?= $(PREFIX)/share/baton

SAN ?=
comma := ,
BUILD ?= build$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))

CFLAGS  ?= -O2 -g
WARN    := -Wall -Wextra -Wshadow=local -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
	-Wformat=2 -Wno-format-nonliteral -Wvla -Wno-maybe-uninitialized -Wno-format-truncation \
	-Wno-unknown-warning-option
CPPFLAGS += -I. -D_GNU_SOURCE -DBATON_VERSION='"$(VERSION)"'
ALL_CFLAGS := -std=c17 $(WARN) $(if $(DEV),-Werror) $(CFLAGS) -fno-strict-aliasing -fPIC \
	$(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer)
# Bound at once, not at each first call: else every child would do that anew between fork and exec,
# and copy the pages that it writes to (a tenth of the CPU time of a start).
ALL_LDFLAGS := $(LDFLAGS) $(if $(SAN),-fsanitize=$(SAN)) -Wl,--as-needed -Wl,-z,now
LIBS := -lev -linih -lsqlite3 -ljansson -lm

CONF_SRC   := $(wildcard conf/*.c)
CLIENT_SRC := worker/client.c worker/client_claim.c worker/client_notify.c
WORKER_SRC := $(filter-out $(CLIENT_SRC),$(wildcard worker/*.c)) $(wildcard worker/lock/*.c) \
	$(wildcard worker/jobs/*.c)
CORE_SRC   := $(wildcard supervisor/core/*.c)
SHELL_SRC  := $(wildcard supervisor/shell/*.c)
CLI_SRC    := $(wildcard supervisor/cli/*.c)
MAIN_SRC   := supervisor/main.c
PART_SRC   := $(CONF_SRC) $(WORKER_SRC) $(CORE_SRC) $(SHELL_SRC) $(CLI_SRC)

obj = $(patsubst %.c,$(BUILD)/%.o,$(1))
PART_OBJ   := $(call obj,$(PART_SRC))
MAIN_OBJ   := $(call obj,$(MAIN_SRC))
CLIENT_OBJ := $(call obj,$(CLIENT_SRC))

# Each tests/unit/test_*.c and tests/sim/*.c is a program of its own, on cmocka, linked with all
# parts of baton but main.c; so is each tests/bench/*.c (without cmocka).
UNIT_SRC  := $(wildcard tests/unit/test_*.c)
SIM_SRC   := $(wildcard tests/sim/sim_*.c)
BENCH_SRC := $(wildcard tests/bench/bench_*.c)
HELPER_SRC := $(wildcard tests/lib/*.c)
UNIT_BIN  := $(patsubst %.c,$(BUILD)/%,$(UNIT_SRC))
SIM_BIN   := $(patsubst %.c,$(BUILD)/%,$(SIM_SRC))
BENCH_BIN := $(patsubst %.c,$(BUILD)/%,$(BENCH_SRC))
HELPER_BIN := $(patsubst %.c,$(BUILD)/%,$(HELPER_SRC))

SONAME := libbaton.so.0

.PHONY: all run check check-unit check-layers check-format bench soak install clean deps \
	deps-run help format docs tests FORCE
.DELETE_ON_ERROR:
.SUFFIXES:

# Found from the place of the program, $(BUILD) as it is installed.
PRELOAD := $(BUILD)/share/baton/node/baton-preload.js

all: $(BUILD)/baton $(BUILD)/libbaton.a $(BUILD)/$(SONAME) $(BUILD)/baton.pc $(PRELOAD)

help:
	@sed -n 's/^#> //p' Makefile
#> make            build build/baton and libbaton
#> make run        install what is missing, build, run the demonstration (SECONDS=15 ends by itself)
#> make check      install what is missing, build, run every test
#> make bench      print the measured figures beside their bare limits
#> make soak       the long fault storms
#> make install    PREFIX=/usr/local DESTDIR=
#> make docs       the manual's state tables anew
#> make format     clang-format over the sources
#> make clean

# --- building ---------------------------------------------------------------------------------
# One short line per step; V=1 shows the commands, -s nothing.
quiet := $(findstring s,$(filter-out --%,$(firstword -$(MAKEFLAGS))))
Q := $(if $(V),,@)
tell = $(if $(V)$(quiet),,@echo "  $(1)  $@")

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(call tell,cc)
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/libparts.a: $(PART_OBJ)
	@rm -f $@
	@$(AR) rcs $@ $^

$(BUILD)/baton: $(MAIN_OBJ) $(BUILD)/libparts.a $(CLIENT_OBJ)
	$(call tell,ld)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/libbaton.a: $(CLIENT_OBJ)
	@rm -f $@
	$(call tell,ar)
	$(Q)$(AR) rcs $@ $^

$(BUILD)/$(SONAME): $(CLIENT_OBJ) worker/libbaton.map
	$(call tell,ld)
	$(Q)$(CC) $(ALL_LDFLAGS) -shared -Wl,-soname,$(SONAME) -Wl,--version-script=worker/libbaton.map \
		-o $@ $(CLIENT_OBJ)
	@ln -sf $(SONAME) $(BUILD)/libbaton.so

$(PRELOAD): contrib/node/baton-preload.js
	@mkdir -p $(@D)
	$(Q)cp $< $@

# Written anew each time, for `make` and then `make install PREFIX=/usr`.
$(BUILD)/baton.pc: worker/baton.pc.in FORCE
	@mkdir -p $(@D)
	$(Q)sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' \
		-e 's|@VERSION@|$(VERSION)|' $< > $@
FORCE:

# --- tests ------------------------------------------------------------------------------------
$(UNIT_BIN) $(SIM_BIN): $(BUILD)/%: $(BUILD)/%.o $(BUILD)/libparts.a $(CLIENT_OBJ)
	@$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) -lcmocka

$(BENCH_BIN) $(HELPER_BIN): $(BUILD)/%: $(BUILD)/%.o $(BUILD)/libparts.a $(CLIENT_OBJ)
	@$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

# It runs the core in memory, as the unit tests do.
$(BUILD)/tests/lib/print_tables: LIBS += -lcmocka

# The same baton as later versions of it: their state is one that this version takes and that takes
# this one's (next), or not (far). Helpers speak another protocol.
UPGRADE_SRC := $(addprefix supervisor/shell/,state_save.c state_load.c upgrade_resume.c waiters.c \
	snapshot.c)
UPGRADE_BIN := $(BUILD)/tests/baton-next $(BUILD)/tests/baton-far
next_flags := -DSTATE_FORMAT=2 -DKEEPER_PROTOCOL=2 -DDEADMAN_PROTOCOL=3
far_flags := -DSTATE_FORMAT=4 -DSTATE_READS_FROM=3 -DSTATE_READABLE_BY=4
$(BUILD)/tests/baton-%: $(UPGRADE_SRC) $(MAIN_OBJ) $(BUILD)/libparts.a $(CLIENT_OBJ)
	@mkdir -p $(@D)
	@$(CC) $(subst "$(VERSION)","$(VERSION)-$*",$(CPPFLAGS)) $($*_flags) $(ALL_CFLAGS) $(ALL_LDFLAGS) \
		-o $@ $(UPGRADE_SRC) $(MAIN_OBJ) $(BUILD)/libparts.a $(CLIENT_OBJ) $(LIBS)

tests: all $(UPGRADE_BIN) $(UNIT_BIN) $(SIM_BIN) $(HELPER_BIN)

# The unit tests and the simulation of one build (the sanitizer build calls this one again).
check-unit: $(UNIT_BIN) $(SIM_BIN) $(PRELOAD)

check: deps
	@sh tests/run.sh

deps:
	@sh contrib/debian/install-deps.sh check

deps-run:
	@sh contrib/debian/install-deps.sh run

run: deps-run
	@[ -x $(BUILD)/baton ] || echo "building $(BUILD)/baton ..."
	@$(MAKE) --no-print-directory -s -j"$$(nproc)" all
	@sh tests/lib/demo.sh "$(BUILD)/baton" "$(SECONDS)"

bench: deps
	@$(MAKE) --no-print-directory -s -j"$$(nproc)" all $(BENCH_BIN) $(HELPER_BIN)
	@sh tests/bench/run.sh "$(BUILD)"

soak: deps
	@$(MAKE) --no-print-directory tests
	@BATON_SOAK=1 sh tests/run.sh

check-layers:
	@sh tests/lib/layers.sh "$(BUILD)"

# The manual's state tables, from the code: a changed transition shows up in review.
docs: $(BUILD)/tests/lib/print_tables
	$< supervisor/baton.8

FORMAT_FILES = $(shell git ls-files '*.c' '*.h' 2>/dev/null)
format:
	clang-format -i $(FORMAT_FILES)
check-format:
	clang-format --dry-run -Werror $(FORMAT_FILES)

# --- installing -------------------------------------------------------------------------------
install: all
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCLUDEDIR) \
		$(DESTDIR)$(MANDIR)/man3 $(DESTDIR)$(MANDIR)/man5 $(DESTDIR)$(MANDIR)/man8 \
		$(DESTDIR)$(DATADIR)/examples $(DESTDIR)$(DATADIR)/python/baton \
		$(DESTDIR)$(DATADIR)/node \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions
	install -m 755 $(BUILD)/baton $(DESTDIR)$(BINDIR)/baton
	install -m 644 $(BUILD)/libbaton.a $(DESTDIR)$(LIBDIR)/libbaton.a
	install -m 755 $(BUILD)/$(SONAME) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libbaton.so
	install -m 644 $(BUILD)/baton.pc $(DESTDIR)$(LIBDIR)/pkgconfig/baton.pc
	install -m 644 worker/baton.h $(DESTDIR)$(INCLUDEDIR)/baton.h
	install -m 644 worker/libbaton.3 $(DESTDIR)$(MANDIR)/man3/libbaton.3
	install -m 644 conf/baton.ini.5 $(DESTDIR)$(MANDIR)/man5/baton.ini.5
	install -m 644 supervisor/baton.8 $(DESTDIR)$(MANDIR)/man8/baton.8
	install -m 644 conf/baton.ini $(DESTDIR)$(DATADIR)/baton.ini
	install -m 644 conf/examples/*.ini conf/examples/*.py $(DESTDIR)$(DATADIR)/examples/
	install -m 644 contrib/python/baton/*.py $(DESTDIR)$(DATADIR)/python/baton/
	install -m 644 contrib/node/baton-preload.js $(DESTDIR)$(DATADIR)/node/baton-preload.js
	install -m 644 contrib/completion/baton.bash \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/baton

clean:
	rm -rf build contrib/python/baton/__pycache__ tests/lib/__pycache__

-include $(patsubst %.o,%.d,$(PART_OBJ) $(MAIN_OBJ) $(CLIENT_OBJ))
-include $(patsubst %.c,$(BUILD)/%.d,$(UNIT_SRC) $(SIM_SRC) $(BENCH_SRC) $(HELPER_SRC))
