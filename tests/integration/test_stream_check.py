"""What BASE_BACKUP sends is checked against the server's manifest: whatever changes on the way fails the run."""

import os
import re

import pytest

from pgrtest import content
from pgrtest.checks import nothing_of_ours, paths_below, start_standby, verify_backup
from pgrtest.programs import failed, succeeded
from pgrtest.relay import Relay, socket_of

pytestmark = pytest.mark.every_major

STREAM = ["-c", "fast", "--jobs=1"]
MATCH = re.compile(r"all \d+ files match the server's backup manifest")

# Tablespaces are sent first, so here the stream is in the middle of the table of `spaced`.
IN_THE_TABLE = 8_000_000


@pytest.fixture
def spaced(pg, clusters, tmp):
    """A server with page checksums, and most of its data in one table of a tablespace."""
    server = clusters.create(pg, initdb=["--data-checksums"]).start()
    location = os.path.join(tmp, "space")
    server.place.give(os.mkdir(location) or location)
    server.sql(f"CREATE TABLESPACE space LOCATION '{location}'", "CREATE TABLE small AS SELECT 1 AS i",
               "CREATE TABLE big (body text) TABLESPACE space", "ALTER TABLE big ALTER body SET STORAGE PLAIN",
               "INSERT INTO big SELECT repeat(md5(i::text), 100) FROM generate_series(1, 6000) i", "CHECKPOINT")
    return server


@pytest.fixture
def options(tmp):
    """Where a copy goes; nothing of it may be left when it fails."""
    target, space = os.path.join(tmp, "copy"), os.path.join(tmp, "copied space")
    return ["-D", target, *STREAM, "-T", f"{os.path.join(tmp, 'space')}={space}"]


def path_of(server, table):
    return server.sql(f"SELECT pg_relation_filepath('{table}')")


def nothing_left(tmp):
    assert not [p for p in os.listdir(tmp) if p.startswith("cop")], os.listdir(tmp)


def needs_manifest(pg):
    if pg.major < 13:
        pytest.skip("manifests came with 13")


# ---- a byte is changed


@pytest.mark.parametrize("how", [["-X", "none"], ["-X", "fetch"], ["-R"], ["--manifest-checksums=SHA256"],
                                 ["--no-sync"]], ids=" ".join)
def test_byte_of_a_file(pg, place, spaced, run, tmp, options, how):
    needs_manifest(pg)
    with Relay(place, socket_of(spaced), flip_byte=IN_THE_TABLE) as relay:
        failed(run.start_basebackup(*options, *how, *relay.address()),
               f'file "{path_of(spaced, "big")}" does not match its checksum in the server\'s backup manifest',
               "hint: ", "TLS")
    nothing_left(tmp)


@pytest.mark.parametrize("how", [["--no-manifest"], ["--manifest-checksums=NONE"]], ids=" ".join)
def test_byte_that_nobody_looks_for(pg, place, spaced, run, tmp, options, how):
    """So it was that byte, and that check, above."""
    how = how if pg.major >= 13 else []
    with Relay(place, socket_of(spaced), flip_byte=IN_THE_TABLE) as relay:
        succeeded(run.start_basebackup(*options, *how, *relay.address()))
    with open(os.path.join(tmp, "copy", path_of(spaced, "big")), "rb") as copy:
        copied = copy.read()
    with open(os.path.join(spaced.data, path_of(spaced, "big")), "rb") as original:
        assert sum(a != b for a, b in zip(copied, original.read(), strict=True)) == 1


@pytest.mark.parametrize("method", ["gzip", "lz4", "zstd"])
def test_byte_of_a_compressed_stream(pg, place, spaced, run, tmp, options, method):
    if pg.major < 15:
        pytest.skip("compression by the server came with 15")
    arguments = [*options, "-X", "none", f"--compress=server-{method}"]
    with Relay(place, socket_of(spaced)) as relay:
        process = run.start_basebackup(*arguments, *relay.address())
        if process.wait() != 0 and "this build does not support" in process.err:
            pytest.skip("the server was built without it")
        succeeded(process)
        half = relay.stop()["from_server"] // 2
    for name in ("copy", "copied space"):
        os.rename(os.path.join(tmp, name), os.path.join(tmp, f"first {name}"))
    with Relay(place, socket_of(spaced), flip_byte=half) as relay:
        failed(run.start_basebackup(*arguments, *relay.address()))
    nothing_left(tmp)


def test_byte_of_the_manifest(pg, place, primary, run, tmp):
    needs_manifest(pg)
    first, second = os.path.join(tmp, "first"), os.path.join(tmp, "second")
    with Relay(place, socket_of(primary)) as relay:
        run.basebackup("-D", first, *STREAM, "-X", "none", *relay.address())
        passed = relay.stop()
    assert passed["connections"] == 1
    assert os.path.getsize(os.path.join(first, "backup_manifest")) > 50_000  # it is the end of what passed
    with Relay(place, socket_of(primary), flip_byte=passed["from_server"] - 20_000) as relay:
        failed(run.start_basebackup("-D", second, *STREAM, "-X", "none", *relay.address()), "backup manifest", "TLS")
    assert os.listdir(tmp) == ["first"]


def test_bad_pages_of_the_server_have_the_last_word(pg, place, spaced, run, tmp, options):
    """The copy stays, since it may be the only one left; that it is not even faithful is a warning."""
    needs_manifest(pg)
    small = path_of(spaced, "small")
    spaced.stop()
    with open(os.path.join(spaced.data, small), "r+b") as f:
        f.seek(100)
        f.write(b"\x55" * 8)
    spaced.start()
    with Relay(place, socket_of(spaced), flip_byte=IN_THE_TABLE) as relay:
        done = failed(run.start_basebackup(*options, *relay.address()), "error: checksum error occurred")
    assert f'warning: file "{path_of(spaced, "big")}" does not match' in done.err, str(done)
    assert {"backup_manifest.tmp", "global/pg_control", small} <= set(paths_below(os.path.join(tmp, "copy")))


# ---- nothing is changed


def matches(done):
    assert len(MATCH.findall(done.err)) == 1, str(done)


@pytest.mark.parametrize("how", [["-X", "fetch"], ["-X", "none"], ["--manifest-checksums=SHA512"],
                                 ["--manifest-checksums=NONE"], ["--manifest-force-encode"]], ids=" ".join)
def test_everything_matches(pg, place, spaced, run, tmp, options, how):
    needs_manifest(pg)
    content.populate(spaced)
    with content.Writer(spaced):
        matches(run.basebackup("-v", *options, *how, *spaced.address()))
    nothing_of_ours(os.path.join(tmp, "copy"))
    verify_backup(pg, place, os.path.join(tmp, "copy"), wal="fetch" in how)


def test_without_a_manifest(pg, primary, run, tmp):
    how = ["--no-manifest"] if pg.major >= 13 else []
    assert not MATCH.search(run.basebackup("-v", "-D", f"{tmp}/copy", *STREAM, *how, *primary.address()).err)


def test_history_files_in_the_manifest(pg, clusters, run, tmp):
    """With -X fetch they are listed, and segments are not."""
    needs_manifest(pg)
    server = clusters.create(pg).start()
    server.new_timeline()
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) i")
    target = os.path.join(tmp, "copy")
    matches(run.basebackup("-v", "-D", target, *STREAM, "-X", "fetch", *server.address()))
    assert "pg_wal/00000002.history" in paths_below(target)
    with open(os.path.join(target, "backup_manifest"), encoding="utf-8") as f:
        assert "pg_wal/00000002.history" in f.read()


def test_replaced_files_and_a_directory_elsewhere(pg, primary, clusters, run, tmp):
    """The manifest of a standby lists its standby.signal, which -R makes anew."""
    needs_manifest(pg)
    first, second, wal = [os.path.join(tmp, name) for name in ("first", "second", "wal")]
    run.basebackup("-D", first, "-R", *STREAM, *primary.address())
    source = start_standby(clusters, pg, first, primary)
    matches(run.basebackup("-v", "-D", second, "-R", *STREAM, "-X", "fetch", f"--waldir={wal}",
                           *source.address()))
    with open(os.path.join(second, "backup_manifest"), encoding="utf-8") as f:
        assert '"standby.signal"' in f.read()
    start_standby(clusters, pg, second, source)


def test_tablespace_in_place(pg, clusters, run, tmp):
    if pg.major < 15:
        pytest.skip("in-place tablespaces came with 15")
    server = clusters.create(pg, allow_in_place_tablespaces="on").start()
    server.sql("CREATE TABLESPACE here LOCATION ''", "CREATE TABLE t TABLESPACE here AS SELECT generate_series(1, 9999) i")
    target = os.path.join(tmp, "copy")
    matches(run.basebackup("-v", "-D", target, *STREAM, *server.address()))
    assert path_of(server, "t") in paths_below(target)


@pytest.mark.parametrize("method", ["gzip", "lz4", "zstd"])
def test_a_compressed_stream_matches(pg, place, spaced, run, tmp, options, method):
    if pg.major < 15:
        pytest.skip("compression by the server came with 15")
    process = run.start_basebackup("-v", *options, f"--compress=server-{method}", *spaced.address())
    if process.wait() != 0 and "this build does not support" in process.err:
        pytest.skip("the server was built without it")
    matches(succeeded(process))
    verify_backup(pg, place, os.path.join(tmp, "copy"))


# ---- the network fails while a thread reads ahead


@pytest.mark.parametrize("method", ["gzip", "lz4"])
def test_connection_lost_in_a_compressed_stream(pg, place, spaced, run, tmp, options, method):
    if pg.major < 15:
        pytest.skip("compression by the server came with 15")
    with Relay(place, socket_of(spaced), cut_after=400_000, rate=4_000_000) as relay:
        process = run.start_basebackup(*options, "-X", "none", f"--compress=server-{method}", *relay.address())
        if process.wait() != 0 and "this build does not support" in process.err:
            pytest.skip("the server was built without it")
        failed(process, "could not read COPY data")
    nothing_left(tmp)


def test_full_disk_while_the_server_is_slow(pg, place, spaced, run, tmp, options, small_disk):
    """The writers fail; the thread that waits for the socket must not keep the run from its end."""
    if pg.major < 15:
        pytest.skip("compression by the server came with 15")
    disk = small_disk(8)
    options[1] = os.path.join(disk, "copy")
    options[-1] = f"{os.path.join(tmp, 'space')}={disk}/space"
    process = run.start_basebackup(*options, "-X", "none", "--compress=server-gzip", "-r", "2M", *spaced.address())
    failed(process, "No space left on device")
    assert os.listdir(disk) == []
