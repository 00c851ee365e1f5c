# pgr: native clients of PostgreSQL's streaming replication protocol.
# `make help` lists the targets.  CC, CFLAGS, CPPFLAGS, LDFLAGS, PREFIX and DESTDIR are yours.

PREFIX  ?= /usr/local
bindir  ?= $(PREFIX)/bin
mandir  ?= $(PREFIX)/share/man
INSTALL ?= install

CFLAGS  ?= -O2 -g
SANITIZE ?=
WERROR  ?=

# ---- what there is: the table of contents ----

COMMON_SRC = \
	common/block.c \
	common/buf.c \
	common/compress.c \
	common/compress_spec.c \
	common/crc32c.c \
	common/decompress.c \
	common/digest.c \
	common/err.c \
	common/fs_call.c \
	common/fs_dir.c \
	common/fs_durable.c \
	common/fs_io.c \
	common/fs_tree.c \
	common/jsonlex.c \
	common/lsn.c \
	common/num.c \
	common/pagesum.c \
	common/path.c \
	common/stop.c \
	common/sys.c \
	common/utf8.c

PROTO_SRC = \
	proto/caps.c \
	proto/client.c \
	proto/command.c \
	proto/conn_params.c \
	proto/copydata.c \
	proto/exchange.c \
	proto/fields.c \
	proto/hosts.c \
	proto/libpq_connect.c \
	proto/libpq_keywords.c \
	proto/libpq_said.c \
	proto/session.c \
	proto/settings.c \
	proto/transport_libpq.c \
	proto/transport_socket.c \
	proto/wire.c

RECEIVER_SRC = \
	receiver/bulk.c \
	receiver/history.c \
	receiver/packseg.c \
	receiver/oldbytes.c \
	receiver/receiver.c \
	receiver/rx_page.c \
	receiver/rx_status.c \
	receiver/rx_stream.c \
	receiver/scan.c \
	receiver/segfile.c \
	receiver/syncer.c \
	receiver/walbranch.c \
	receiver/walchain.c \
	receiver/walcheck.c \
	receiver/walfile.c \
	receiver/wallist.c \
	receiver/walpack.c \
	receiver/walpage.c \
	receiver/walrecord.c \
	receiver/walstore.c \
	receiver/walsurvey.c

BACKUP_SRC = \
	backup/arrivals.c \
	backup/basebackup.c \
	backup/bbstream.c \
	backup/controlfile.c \
	backup/copyrows.c \
	backup/delta_choose.c \
	backup/delta_doubt.c \
	backup/delta_kept.c \
	backup/delta_look.c \
	backup/delta_plan.c \
	backup/delta_seed.c \
	backup/delta_tell.c \
	backup/delta_way.c \
	backup/dirsink.c \
	backup/exclude.c \
	backup/extract.c \
	backup/filelist.c \
	backup/filesum.c \
	backup/finish.c \
	backup/full_label.c \
	backup/incremental.c \
	backup/inflate.c \
	backup/keep.c \
	backup/kept.c \
	backup/label.c \
	backup/lane_added.c \
	backup/lane_dir.c \
	backup/lane_files.c \
	backup/lane_hash.c \
	backup/lane_local.c \
	backup/lane_query.c \
	backup/lane_read.c \
	backup/lane_sessions.c \
	backup/lane_sums.c \
	backup/lane_work.c \
	backup/lanes.c \
	backup/lanes_seed.c \
	backup/layout.c \
	backup/layout_old.c \
	backup/layout_wal.c \
	backup/listing.c \
	backup/localtree.c \
	backup/lowlevel.c \
	backup/manifest_edit.c \
	backup/manifest_list.c \
	backup/manifest_reader.c \
	backup/manifest_writer.c \
	backup/olddir.c \
	backup/olddir_apart.c \
	backup/olddir_busy.c \
	backup/olddir_take.c \
	backup/outfile.c \
	backup/packer.c \
	backup/pagecheck.c \
	backup/patch.c \
	backup/pidfile.c \
	backup/pieces.c \
	backup/ratelimit.c \
	backup/readahead.c \
	backup/recheck.c \
	backup/recovery_conf.c \
	backup/root.c \
	backup/rowsum.c \
	backup/run.c \
	backup/run_meter.c \
	backup/run_manifest.c \
	backup/seed_state.c \
	backup/source.c \
	backup/sql.c \
	backup/stream_check.c \
	backup/stream_seed.c \
	backup/summary_facts.c \
	backup/summary_seed.c \
	backup/tar.c \
	backup/tar_head.c \
	backup/tar_inject.c \
	backup/tar_out.c \
	backup/tar_seed.c \
	backup/tar_sink.c \
	backup/tblspc_map.c \
	backup/upload.c \
	backup/wal_conn.c \
	backup/wal_pack.c \
	backup/wal_stream.c \
	backup/walsummary.c \
	backup/wipe.c

TOOLS_SRC = \
	tools/backoff.c \
	tools/basebackup_options.c \
	tools/connopts.c \
	tools/message.c \
	tools/progress.c \
	tools/receive_start.c \
	tools/receivewal_options.c \
	tools/retry.c \
	tools/signals.c \
	tools/syncnames.c \
	tools/walverify.c

PROGRAMS = pgr-basebackup pgr-receivewal

SUPPORT_SRC = \
	tests/support/fault_sys.c \
	tests/support/scripted.c

UNIT_TESTS = \
	common/test_block common/test_buf common/test_compress common/test_compress_spec common/test_crc32c common/test_decompress common/test_digest \
	common/test_err common/test_fs_dir common/test_fs_durable common/test_fs_io common/test_fs_tree common/test_jsonlex common/test_lsn \
	common/test_num common/test_pagesum common/test_path common/test_stop common/test_utf8 \
	proto/test_caps proto/test_client proto/test_command proto/test_copydata proto/test_fields proto/test_hosts proto/test_libpq_said \
	proto/test_session proto/test_settings proto/test_transport_socket proto/test_wire \
	receiver/test_history receiver/test_receiver receiver/test_scan receiver/test_syncer receiver/test_walcheck receiver/test_walpack receiver/test_walpage receiver/test_walrecord receiver/test_walstore \
	backup/test_bbstream backup/test_controlfile backup/test_copyrows backup/test_delta_choose backup/test_delta_doubt \
	backup/test_delta_plan backup/test_dirsink backup/test_exclude backup/test_extract \
	backup/test_filelist backup/test_filesum backup/test_full_label backup/test_incremental \
	backup/test_inflate backup/test_kept backup/test_lane_delta backup/test_lane_sessions backup/test_lane_work backup/test_lanes backup/test_layout \
	backup/test_listing backup/test_localtree backup/test_lowlevel backup/test_manifest backup/test_manifest_edit \
	backup/test_olddir backup/test_packer backup/test_pagecheck backup/test_patch backup/test_ratelimit \
	backup/test_readahead backup/test_recheck \
	backup/test_recovery_conf backup/test_rowsum backup/test_sql backup/test_stream_check backup/test_summary_facts backup/test_tar \
	backup/test_tar_head backup/test_tar_out \
	backup/test_upload backup/test_wal_stream backup/test_walsummary \
	tools/test_backoff tools/test_connopts tools/test_message tools/test_retry tools/test_signals tools/test_syncnames

FUZZ_TARGETS = fuzz_copydata fuzz_history fuzz_incremental fuzz_manifest fuzz_patch fuzz_seed_state fuzz_session fuzz_tar fuzz_walcheck \
	fuzz_walsummary

# ---- how it is built ----

comma := ,
VARIANT := $(if $(SANITIZE),san-$(subst $(comma),-,$(SANITIZE)),plain)
BUILD ?= build/$(VARIANT)

PKGS = libpq openssl zlib libzstd liblz4
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(PKGS) 2>/dev/null)
CHECK_CFLAGS = $(shell pkg-config --cflags check 2>/dev/null)
CHECK_LIBS   = $(shell pkg-config --libs check 2>/dev/null)

WARN = -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wcast-qual \
       -Wformat=2 -Wvla -Wundef -Wwrite-strings -Wno-missing-field-initializers $(if $(WERROR),-Werror)
SAN = $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
ALL_CFLAGS = -std=c11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -I. $(PKG_CFLAGS) $(CPPFLAGS) $(WARN) $(CFLAGS) $(SAN) -pthread -MMD -MP
ALL_LIBS = $(LDFLAGS) $(SAN) $(PKG_LIBS) -pthread

obj = $(patsubst %.c,$(BUILD)/%.o,$(1))
LIBS_DOWN_common   = $(BUILD)/libcommon.a
LIBS_DOWN_proto    = $(BUILD)/libproto.a $(LIBS_DOWN_common)
LIBS_DOWN_receiver = $(BUILD)/libreceiver.a $(LIBS_DOWN_proto)
LIBS_DOWN_backup   = $(BUILD)/libbackup.a $(LIBS_DOWN_receiver)
LIBS_DOWN_tools    = $(BUILD)/libtools.a $(LIBS_DOWN_backup)

.DEFAULT_GOAL := all
.PHONY: all help unit relay rawrecv showcontrol powercut check check-crash check-kills check-matrix demo bench bench-delta bench-wal fuzz install clean

all: $(PROGRAMS:%=$(BUILD)/%) ## build the programs

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -c -o $@ $<

$(BUILD)/libcommon.a: $(call obj,$(COMMON_SRC))
$(BUILD)/libproto.a: $(call obj,$(PROTO_SRC))
$(BUILD)/libreceiver.a: $(call obj,$(RECEIVER_SRC))
$(BUILD)/libbackup.a: $(call obj,$(BACKUP_SRC))
$(BUILD)/libtools.a: $(call obj,$(TOOLS_SRC))
$(BUILD)/libsupport.a: $(call obj,$(SUPPORT_SRC))
$(BUILD)/lib%.a:
	@rm -f $@
	$(AR) rcs $@ $^

$(PROGRAMS:%=$(BUILD)/%): $(BUILD)/%: $(BUILD)/tools/%.o $(LIBS_DOWN_tools)
	$(CC) -o $@ $^ $(ALL_LIBS)

# Each unit test is a program: tests/unit/<layer>/test_<module>.c, linked with its layer and those below.
define UNIT_RULE
$(BUILD)/tests/unit/$(1): $(BUILD)/tests/unit/$(1).o $(BUILD)/libsupport.a $$(LIBS_DOWN_$(firstword $(subst /, ,$(1))))
	$$(CC) -o $$@ $$^ $$(ALL_LIBS) $$(CHECK_LIBS)
$(BUILD)/tests/unit/$(1).o: ALL_CFLAGS += $$(CHECK_CFLAGS)
endef
$(foreach t,$(UNIT_TESTS),$(eval $(call UNIT_RULE,$(t))))

# A fuzz target replays its corpus in every test run; `make fuzz` builds it with libFuzzer (clang).
FUZZ_LIBS_fuzz_copydata    = $(LIBS_DOWN_proto)
FUZZ_LIBS_fuzz_history     = $(LIBS_DOWN_receiver)
FUZZ_LIBS_fuzz_incremental = $(LIBS_DOWN_backup)
FUZZ_LIBS_fuzz_manifest    = $(LIBS_DOWN_backup)
FUZZ_LIBS_fuzz_patch       = $(LIBS_DOWN_backup)
FUZZ_LIBS_fuzz_seed_state  = $(LIBS_DOWN_backup)
FUZZ_LIBS_fuzz_session     = $(LIBS_DOWN_proto)
FUZZ_LIBS_fuzz_tar         = $(LIBS_DOWN_backup)
FUZZ_LIBS_fuzz_walcheck    = $(LIBS_DOWN_receiver)
FUZZ_LIBS_fuzz_walsummary  = $(BUILD)/libsupport.a $(LIBS_DOWN_backup)
define FUZZ_RULE
$(BUILD)/tests/fuzz/$(1)-replay: $(BUILD)/tests/fuzz/$(1).o $(BUILD)/tests/fuzz/replay.o $$(FUZZ_LIBS_$(1))
	$$(CC) -o $$@ $$^ $$(ALL_LIBS)
endef
$(foreach t,$(FUZZ_TARGETS),$(eval $(call FUZZ_RULE,$(t))))

# A network that is slow, distant or faulty, for tests and benchmarks.
RELAY = $(BUILD)/tests/bench/relay
$(RELAY): $(call obj,tests/bench/relay.c tests/bench/pipe.c)
	$(CC) -o $@ $^ $(ALL_LIBS)

relay: $(RELAY)

# What a receiver of WAL could at best reach: it throws away what comes.
RAWRECV = $(BUILD)/tests/bench/rawrecv
$(RAWRECV): $(call obj,tests/bench/rawrecv.c) $(LIBS_DOWN_proto)
	$(CC) -o $@ $^ $(ALL_LIBS)

rawrecv: $(RAWRECV)

# What we read of a pg_control, for tests with real servers.
SHOWCONTROL = $(BUILD)/tests/support/showcontrol
$(SHOWCONTROL): $(call obj,tests/support/showcontrol.c) $(LIBS_DOWN_backup)
	$(CC) -o $@ $^ $(ALL_LIBS)

showcontrol: $(SHOWCONTROL)

# What a power cut would leave: preloaded into the programs under test, so it is never itself sanitized.
POWERCUT = $(BUILD)/powercut.so
$(POWERCUT): tests/support/powercut.c
	@mkdir -p $(@D)
	$(CC) $(filter-out -fsanitize=%,$(ALL_CFLAGS)) -fPIC -shared -o $@ $< $(LDFLAGS)

powercut: $(POWERCUT)

unit: $(UNIT_TESTS:%=$(BUILD)/tests/unit/%) $(FUZZ_TARGETS:%=$(BUILD)/tests/fuzz/%-replay) all ## build and run the unit tests
	@set -e; for t in $(UNIT_TESTS); do $(BUILD)/tests/unit/$$t; done
	@set -e; for t in $(FUZZ_TARGETS); do $(BUILD)/tests/fuzz/$$t-replay tests/fuzz/corpus/$${t#fuzz_}; done
	@set -e; for p in $(PROGRAMS); do tests/support/check-man.sh $(BUILD)/$$p docs/man/$$p.1; done

# ---- what a person runs ----

PYTEST = /usr/bin/python3 -m pytest -q -n auto --maxprocesses=4
export PGR_BIN_DIR = $(abspath $(BUILD))

check: ## build and run all tests on Debian's PostgreSQL (installs what is missing)
	@tests/support/install-deps.sh check
	@$(MAKE) --no-print-directory all unit relay showcontrol powercut
	$(PYTEST) tests/integration

check-crash: ## cut the power of pgr-receivewal over 1,000 times for each compression, of pgr-basebackup hundreds of times in each way (half an hour)
	@tests/support/install-deps.sh check
	@$(MAKE) --no-print-directory all powercut
	$(PYTEST) -m long tests/integration/test_powercut*.py

check-kills: ## all tests of --delta, with 200 kills in each of several situations, and power cuts (half an hour)
	@tests/support/install-deps.sh check
	@$(MAKE) --no-print-directory all relay powercut
	PGR_KILLS=$${PGR_KILLS:-200} $(PYTEST) -m "long or not long" tests/integration/test_delta*.py

MAJORS = 10 11 12 13 14 15 16 17 18

check-matrix: ## the integration tests on every major from 10 to 18 (fetches the servers)
	@tests/support/install-deps.sh matrix
	@tests/support/fetch-servers.sh
	@$(MAKE) --no-print-directory all relay showcontrol powercut
	PGR_MAJORS="$(MAJORS)" $(PYTEST) -m "every_major and not long" tests/integration

demo: ## seed a standby from a throw-away primary and receive its WAL
	@tests/support/install-deps.sh demo
	@$(MAKE) --no-print-directory all
	@tests/demo.sh

bench: ## compare with pg_basebackup, into docs/BENCHMARKS.md (about an hour, on a quiet machine)
	@tests/support/install-deps.sh check
	@$(MAKE) --no-print-directory all relay
	@/usr/bin/python3 tests/bench/bench.py $(BENCH_OPTIONS)

bench-delta: ## compare --delta with full copies and rsync, into docs/BENCHMARKS-DELTA.md (about an hour, on a quiet machine)
	@tests/support/install-deps.sh bench
	@$(MAKE) --no-print-directory all relay
	@/usr/bin/python3 tests/bench/bench_delta.py $(BENCH_OPTIONS)

bench-wal: ## compare with pg_receivewal, into docs/BENCHMARKS-WAL.md (about 45 minutes, on a quiet machine)
	@tests/support/install-deps.sh check
	@$(MAKE) --no-print-directory all rawrecv powercut
	@/usr/bin/python3 tests/bench/bench_wal.py $(BENCH_OPTIONS)

fuzz: ## build the fuzz targets with libFuzzer, in build/fuzz
	@$(MAKE) --no-print-directory CC=clang BUILD=build/fuzz SANITIZE=fuzzer-no-link,address,undefined $(FUZZ_TARGETS:%=build/fuzz/%)

$(FUZZ_TARGETS:%=build/fuzz/%): build/fuzz/%: $(BUILD)/tests/fuzz/%.o $(BUILD)/libsupport.a $(LIBS_DOWN_backup)
	$(CC) -fsanitize=fuzzer,address,undefined -o $@ $^ $(PKG_LIBS) -pthread

install: all ## install programs and man pages below PREFIX (and DESTDIR)
	$(INSTALL) -d $(DESTDIR)$(bindir) $(DESTDIR)$(mandir)/man1
	$(INSTALL) -m 755 $(PROGRAMS:%=$(BUILD)/%) $(DESTDIR)$(bindir)
	$(INSTALL) -m 644 $(PROGRAMS:%=docs/man/%.1) $(DESTDIR)$(mandir)/man1

clean: ## remove everything that was built
	rm -rf build

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
