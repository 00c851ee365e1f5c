"""pgr-basebackup fails: one clear error that names its object, exit code 1, and nothing left behind."""

import os
import signal

import pytest

from pgrtest import content
from pgrtest.checks import paths_below, start_standby
from pgrtest.place import wait_until
from pgrtest.programs import died_of, failed
from pgrtest.server import free_port


@pytest.fixture
def target(tmp):
    return os.path.join(tmp, "copy")


def nothing_left(tmp, server=None, but=()):
    """No file below tmp but those that were there before, no slot and no WAL sender on the server."""
    assert set(paths_below(tmp)) == set(but), f"left behind: {set(paths_below(tmp)) ^ set(but)}"
    if server is not None:
        wait_until(lambda: server.try_sql("SELECT 1") == "1", "the server is back")
        wait_until(lambda: not server.slots(), f"no slot is left on the server: {server.slots()}")


def start_slow_copy(run, server, target, *options):
    """Starts a copy that takes a good while, and returns when it is in the middle."""
    process = run.start_basebackup("-D", target, "-c", "fast", "-r", "4M", *options, *server.address())

    def enough():
        return sum(os.lstat(os.path.join(target, p)).st_size for p in paths_below(target)) > 3 << 20

    wait_until(lambda: enough() or not process.running(), "some megabytes are copied")
    assert process.running(), str(process)
    return process


# ---- connections


def test_nobody_listens(run, tmp, target):
    port = free_port()
    process = run.start_basebackup("-D", target, "-h", "127.0.0.1", "-p", port, "-U", "postgres")
    failed(process, port, "Connection refused")
    nothing_left(tmp)


def test_unknown_host_name(run, tmp, target):
    failed(run.start_basebackup("-D", target, "-h", "no-such-host.invalid", "-U", "postgres"), "no-such-host.invalid")
    nothing_left(tmp)


def test_bad_connection_string(run, tmp, target):
    failed(run.start_basebackup("-D", target, "-d", "hots=127.0.0.1"), "hots")
    nothing_left(tmp)


def test_certificate_of_another_host(primary, run, tmp, target, certificates):
    settings = primary.conninfo(host="db.example.com", hostaddr=primary.host, sslmode="verify-full",
                                sslrootcert=certificates.ca)
    failed(run.start_basebackup("-D", target, "-d", settings), "db.example.com", "certificate")
    nothing_left(tmp, primary)


def test_certificate_of_an_unknown_authority(primary, run, tmp, target, certificates):
    settings = primary.conninfo(host="localhost", sslmode="verify-full", sslrootcert=certificates.stranger)
    failed(run.start_basebackup("-D", target, "-d", settings), "certificate verify failed")
    nothing_left(tmp, primary)


def test_tls_is_not_to_be_had(pg, clusters, run, tmp, target):
    server = clusters.create(pg).start()
    failed(run.start_basebackup("-D", target, "-d", server.conninfo(sslmode="require")), "does not support SSL")
    nothing_left(tmp, server)


def test_wrong_password(primary, run, tmp, target):
    failed(run.start_basebackup("-D", target, *primary.address("keeper"), env={"PGPASSWORD": "wrong"}),
           'password authentication failed for user "keeper"')
    nothing_left(tmp, primary)


def test_no_password(primary, run, tmp, target):
    failed(run.start_basebackup("-D", target, "-w", *primary.address("keeper")), "no password supplied")
    nothing_left(tmp, primary)


def test_role_may_not_replicate(primary, run, tmp, target):
    # "must be superuser or replication role to start walsender", "permission denied to start WAL sender"
    process = failed(run.start_basebackup("-D", target, *primary.address("nobody_special")))
    assert "to start" in process.err and "replication" in process.err.lower(), str(process)
    nothing_left(tmp, primary)


def test_role_is_unknown(primary, run, tmp, target):
    failed(run.start_basebackup("-D", target, *primary.address("who")), 'role "who" does not exist')
    nothing_left(tmp, primary)


def test_no_line_in_pg_hba(pg, clusters, run, tmp, target):
    server = clusters.create(pg)
    server.set_hba("local all all trust\nhost all all 127.0.0.1/32 trust\n")
    server.start()
    failed(run.start_basebackup("-D", target, *server.address()), "no pg_hba.conf entry", "127.0.0.1")
    nothing_left(tmp, server)


# ---- what the server has not


def test_missing_slot(primary, run, tmp, target):
    failed(run.start_basebackup("-D", target, "-c", "fast", "-S", "nowhere", *primary.address()),
           'replication slot "nowhere" does not exist')
    nothing_left(tmp, primary)


def test_slot_exists_already(primary, run, tmp, target):
    primary.sql("SELECT pg_create_physical_replication_slot('taken')")
    try:
        failed(run.start_basebackup("-D", target, "-c", "fast", "-C", "-S", "taken", *primary.address()),
               'replication slot "taken" already exists')
        assert primary.slots() == ["taken"]
        nothing_left(tmp)
    finally:
        primary.sql("SELECT pg_drop_replication_slot('taken')")


def test_slot_is_in_use(pg, primary, run, tmp, target):
    primary.sql("SELECT pg_create_physical_replication_slot('busy')")
    received = os.path.join(tmp, "wal")
    primary.place.give(os.mkdir(received) or received)
    receiver = run.start_receivewal("-D", received, "-S", "busy", *primary.address())
    try:
        wait_until(lambda: primary.sql("SELECT active FROM pg_replication_slots") == "t", "the slot is in use")
        failed(run.start_basebackup("-D", target, "-c", "fast", "-S", "busy", *primary.address()), '"busy"', "active")
        assert not os.path.exists(target)
    finally:
        receiver.end()
        wait_until(lambda: primary.sql("SELECT active FROM pg_replication_slots") == "f", "the slot is free")
        primary.sql("SELECT pg_drop_replication_slot('busy')")


@pytest.mark.parametrize("senders", [0, 1])
def test_no_wal_sender_is_free(pg, clusters, run, tmp, target, senders):
    """For the copy itself, or for the WAL beside it."""
    server = clusters.create(pg, max_wal_senders=senders, wal_level="replica").start()
    failed(run.start_basebackup("-D", target, "-c", "fast", *server.address()), "max_wal_senders")
    nothing_left(tmp, server)


def test_unknown_checksum_algorithm(pg, primary, run, tmp, target):
    if pg.major < 13:
        pytest.skip("manifests came with 13")
    failed(run.start_basebackup("-D", target, "-c", "fast", "--manifest-checksums=MD4", *primary.address()), "MD4")
    nothing_left(tmp, primary)


@pytest.mark.parametrize("specification", ["brotli", "gzip:10", "zstd:depth=3"])
def test_compression_that_the_server_does_not_know(pg, primary, run, tmp, target, specification):
    """Only the server knows what it can."""
    if pg.major < 15:
        pytest.skip("compression by the server came with 15")
    failed(run.start_basebackup("-D", target, "-Z", f"server-{specification}", *primary.address()),
           "could not initiate base backup: ERROR:  ", "compression")
    nothing_left(tmp, primary)


def test_file_name_too_long_for_tar(pg, clusters, run, tmp, target):
    server = clusters.create(pg).start()
    name = "n" * 120
    server.place.write(os.path.join(server.data, name), "")
    failed(run.start_basebackup("-D", target, "-c", "fast", "-j1", *server.address()), "file name too long", name)
    nothing_left(tmp, server)


# ---- directories


@pytest.mark.parametrize("content_name", ["something", ".hidden", "lost+found"])
def test_directory_is_not_empty(primary, run, tmp, target, content_name):
    primary.place.give(os.mkdir(target) or target)
    primary.place.write(os.path.join(target, content_name), "mine")
    failed(run.start_basebackup("-D", target, "-c", "fast", *primary.address()), f'"{target}" exists but is not empty')
    nothing_left(tmp, primary, but={"copy", f"copy/{content_name}"})


def test_directory_is_a_file(primary, run, tmp, target):
    primary.place.write(target, "mine")
    failed(run.start_basebackup("-D", target, "-c", "fast", *primary.address()), f'"{target}"')
    nothing_left(tmp, primary, but={"copy"})


def test_directory_cannot_be_made(primary, run, tmp, target):
    os.chmod(tmp, 0o500)
    try:
        failed(run.start_basebackup("-D", target, "-c", "fast", *primary.address()), f'"{target}"', "Permission denied")
    finally:
        os.chmod(tmp, 0o700)
    nothing_left(tmp, primary)


def test_directory_cannot_be_written_to(primary, run, tmp, target):
    primary.place.give(os.mkdir(target) or target)
    os.chmod(target, 0o500)
    failed(run.start_basebackup("-D", target, "-c", "fast", *primary.address()), target, "Permission denied")
    nothing_left(tmp, primary, but={"copy"})


def test_waldir_is_not_empty(primary, run, tmp, target):
    waldir = os.path.join(tmp, "wal")
    primary.place.give(os.mkdir(waldir) or waldir)
    primary.place.write(os.path.join(waldir, "something"), "mine")
    failed(run.start_basebackup("-D", target, "--waldir", waldir, "-c", "fast", *primary.address()),
           f'"{waldir}" exists but is not empty')
    nothing_left(tmp, primary, but={"wal", "wal/something"})


@pytest.fixture
def spaced(pg, clusters, tmp):
    """A server with a tablespace outside `tmp`, and its location."""
    server = clusters.create(pg).start()
    location = server.place.directory()
    server.sql(f"CREATE TABLESPACE space LOCATION '{location}'",
               "CREATE TABLE spaced TABLESPACE space AS SELECT generate_series(1, 100000) i")
    yield server, location
    server.stop("immediate")
    server.place.discard(location)


def test_tablespace_is_where_the_server_has_it(spaced, run, tmp, target):
    server, location = spaced
    before = paths_below(location)
    failed(run.start_basebackup("-D", target, "-c", "fast", *server.address()), f'"{location}" exists but is not empty')
    assert paths_below(location) == before
    nothing_left(tmp, server)


def test_tablespace_directory_is_not_empty(spaced, run, tmp, target):
    server, location = spaced
    new = os.path.join(tmp, "new")
    server.place.give(os.mkdir(new) or new)
    server.place.write(os.path.join(new, "something"), "mine")
    failed(run.start_basebackup("-D", target, "-c", "fast", "-T", f"{location}={new}", *server.address()),
           f'"{new}" exists but is not empty')
    nothing_left(tmp, server, but={"new", "new/something"})


# ---- in the middle


def test_server_is_killed(pg, clusters, run, tmp, target):
    server = clusters.create(pg).start()
    process = start_slow_copy(run, server, target)
    server.kill()
    failed(process)
    assert "server" in process.err or "postmaster" in process.err, str(process)
    nothing_left(tmp)


@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_server_is_shut_down(pg, clusters, run, tmp, target, mode):
    """The copy is ended by it, the WAL stream ends in good order: whichever is noticed first is told."""
    server = clusters.create(pg).start()
    process = start_slow_copy(run, server, target)
    server.stop(mode)
    failed(process)
    assert any(words in process.err for words in
               ("terminating connection", "server closed", "server shut down", "system is shutting down"))
    nothing_left(tmp)


def test_administrator_ends_the_copy(primary, run, tmp, target):
    process = start_slow_copy(run, primary, target, "-j1")
    primary.sql(f"SELECT pg_terminate_backend({primary.sender_pid('backup')})")
    failed(process, "terminating connection due to administrator command")
    nothing_left(tmp, primary)


def test_administrator_cancels(primary, run, tmp, target):
    process = start_slow_copy(run, primary, target, "-j1")
    primary.sql(f"SELECT pg_cancel_backend({primary.sender_pid('backup')})")
    failed(process, "canceling statement due to user request")
    nothing_left(tmp, primary)


def test_failure_keeps_nothing_anywhere(spaced, run, tmp, target):
    """A data directory that was there already, the WAL directory, a tablespace, the slot that was made."""
    server, location = spaced
    primary_place = server.place
    primary_place.give(os.mkdir(target) or target)
    new, waldir = os.path.join(tmp, "new"), os.path.join(tmp, "wal")
    process = start_slow_copy(run, server, target, "-T", f"{location}={new}", "--waldir", waldir, "-C", "-S", "made",
                              "-j1")
    assert os.path.isdir(new) and os.path.isdir(waldir)
    wait_until(lambda: server.slots() == ["made"], "the slot is made")
    server.sql(f"SELECT pg_terminate_backend({server.sender_pid('backup')})")
    failed(process, "terminating connection")
    nothing_left(tmp, server, but={"copy"})


def test_no_clean(primary, run, tmp, target):
    process = start_slow_copy(run, primary, target, "--no-clean", "-j1")
    primary.sql(f"SELECT pg_terminate_backend({primary.sender_pid('backup')})")
    failed(process, "terminating connection")
    assert paths_below(target)
    assert not os.path.exists(os.path.join(target, "backup_manifest"))
    assert not os.path.exists(os.path.join(target, "global", "pg_control"))


def test_source_standby_is_promoted(pg, primary, clusters, run, tmp, target):
    source = os.path.join(tmp, "source")
    run.basebackup("-D", source, "-R", "-c", "fast", *primary.address())
    standby = start_standby(clusters, pg, source, primary)
    process = start_slow_copy(run, standby, target)
    standby.promote()
    failed(process, "standby was promoted")
    assert not os.path.exists(target)


# ---- signals

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda s: s.name)
def test_signal_in_the_middle(spaced, run, tmp, target, number):
    server, location = spaced
    options = ["-T", f"{location}={tmp}/new", "--waldir", f"{tmp}/wal", "-C", "-S", "made"]
    process = start_slow_copy(run, server, target, *options)
    wait_until(lambda: server.slots() == ["made"], "the slot is made")
    process.signal(number)
    died_of(process, number)
    nothing_left(tmp, server)


def test_signal_and_a_directory_that_was_there(primary, run, tmp, target):
    primary.place.give(os.mkdir(target) or target)
    process = start_slow_copy(run, primary, target)
    process.signal(signal.SIGTERM)
    died_of(process, signal.SIGTERM)
    nothing_left(tmp, primary, but={"copy"})


def test_signal_while_the_server_makes_its_checkpoint(pg, clusters, run, tmp, target):
    """Nobody waits for the rest of it, neither here nor on the server."""
    server = clusters.create(pg, checkpoint_completion_target="0.9").start()
    content.populate(server)
    server.sql("UPDATE accounts SET balance = balance + 1")
    process = run.start_basebackup("-D", target, "-v", "-c", "spread", "-j1", *server.address())
    server.sender_pid("backup")
    process.wait_for_text("waiting for checkpoint")
    process.signal(signal.SIGINT)
    died_of(process, signal.SIGINT)
    nothing_left(tmp, server)
    wait_until(lambda: not server.senders(), "the server has no WAL sender left")


def test_killed_copy_does_not_start(pg, primary, clusters, run, tmp, target):
    """SIGKILL leaves what is there, but never something that a server takes for a cluster."""
    process = start_slow_copy(run, primary, target)
    process.end()
    assert not os.path.exists(os.path.join(target, "backup_manifest"))
    assert not os.path.exists(os.path.join(target, "global", "pg_control"))
    server = clusters.adopt(pg, target)
    server.launch()
    wait_until(lambda: not server.running(), "it ends")
    assert "ready to accept" not in server.log_text()


# ---- full disks


def test_disk_is_full(primary, run, tmp, small_disk):
    disk = small_disk(12)
    arguments = ["-D", f"{disk}/copy", "-X", "none", "-c", "fast", *primary.address()]
    failed(run.start_basebackup(*arguments), f"{disk}/copy/", "No space left")
    nothing_left(tmp, primary, but={"disk"})


def test_disk_of_the_wal_is_full(primary, run, tmp, target, small_disk):
    disk = small_disk(8)
    failed(run.start_basebackup("-D", target, "--waldir", f"{disk}/wal", "-c", "fast", *primary.address()),
           "No space left")
    nothing_left(tmp, primary, but={"disk"})


@pytest.mark.every_major
@pytest.mark.parametrize("manifest", [True, False], ids=["manifest", "no-manifest"])
def test_a_torn_pg_control(pg, clusters, run, tmp, manifest):
    """BASE_BACKUP sends what it reads, and its manifest has the sum of that; no server would start with it."""
    server = clusters.create(pg).start()
    target = os.path.join(tmp, "copy")
    more = [] if manifest else ["--no-manifest"]
    process = run.start_basebackup("-D", target, "-j1", "-c", "fast", "-r", "4M", *more, *server.address())
    wait_until(lambda: os.path.exists(os.path.join(target, "base")), "it copies")
    with open(os.path.join(server.data, "global", "pg_control"), "r+b") as f:
        whole = f.read()
        f.seek(100)
        f.write(bytes(b ^ 1 for b in whole[100:108]))
    failed(process, "checksum")  # newer minor versions of the server look at it themselves
    assert not os.path.exists(target)
    with open(os.path.join(server.data, "global", "pg_control"), "wb") as f:
        f.write(whole)
