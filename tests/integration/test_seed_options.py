"""pgr-basebackup's options, on one server."""

import json
import os
import re
import subprocess

import pytest

from pgrtest import conninfo, content
from pgrtest.checks import nothing_of_ours, paths_below, start_standby, verify_backup
from pgrtest.place import wait_until
from pgrtest.programs import failed, succeeded
from pgrtest.server import free_port


@pytest.fixture
def target(tmp):
    return os.path.join(tmp, "copy")


def manifest(target):
    with open(os.path.join(target, "backup_manifest"), encoding="utf-8") as f:
        return json.load(f)


def text_of(*path):
    with open(os.path.join(*path), encoding="utf-8") as f:
        return f.read()


def needs_manifest(pg):
    if pg.major < 13:
        pytest.skip("manifests came with 13")


# ---- where the copy goes


def test_existing_empty_directory_is_used(pg, primary, run, tmp):
    run.basebackup("-D", tmp, "-c", "fast", *primary.address())
    verify_backup(pg, primary.place, tmp)


def test_relative_directory_and_missing_parents(pg, primary, run, tmp):
    run.basebackup("-D", "a/b/c", "-c", "fast", *primary.address(), cwd=tmp)
    verify_backup(pg, primary.place, os.path.join(tmp, "a/b/c"))
    assert set(os.listdir(tmp)) == {"a"}


def test_waldir(pg, primary, clusters, run, tmp, target):
    waldir = os.path.join(tmp, "wal here")
    run.basebackup("-D", target, f"--waldir={waldir}", "-R", "-c", "fast", *primary.address())
    assert os.readlink(os.path.join(target, "pg_wal")) == waldir
    assert any(len(name) == 24 for name in os.listdir(waldir))
    verify_backup(pg, primary.place, target)
    start_standby(clusters, pg, target, primary)


def test_waldir_with_fetched_wal(pg, primary, clusters, run, tmp, target):
    waldir = os.path.join(tmp, "wal")
    run.basebackup("-D", target, "--waldir", waldir, "-X", "fetch", "-R", "-c", "fast", *primary.address())
    assert any(len(name) == 24 for name in os.listdir(waldir))
    verify_backup(pg, primary.place, target)
    start_standby(clusters, pg, target, primary)


def test_in_place_tablespace(pg, clusters, run, target):
    """Its location is relative, so it needs no mapping on the same machine."""
    if pg.major < 15:
        pytest.skip("in-place tablespaces came with 15")
    primary = clusters.create(pg, allow_in_place_tablespaces="on").start()
    primary.sql("CREATE TABLESPACE inside LOCATION ''",
                "CREATE TABLE spaced TABLESPACE inside AS SELECT generate_series(1, 5000) i")
    run.basebackup("-D", target, "-R", "-c", "fast", *primary.address())
    (oid,) = os.listdir(os.path.join(target, "pg_tblspc"))
    assert not os.path.islink(os.path.join(target, "pg_tblspc", oid))
    nothing_of_ours(target)
    verify_backup(pg, primary.place, target)
    standby = start_standby(clusters, pg, target, primary)
    assert standby.sql("SELECT count(*) FROM spaced") == "5000"


def test_tablespace_without_mapping(pg, clusters, run, tmp, target):
    """It goes where the server has it: to an empty directory, as on another machine, in a mount namespace here."""
    location, elsewhere = os.path.join(tmp, "space"), os.path.join(tmp, "elsewhere")
    primary = clusters.create(pg).start()
    for path in (location, elsewhere):
        primary.place.give(os.mkdir(path) or path)
    other_machine = namespace(primary.place, elsewhere, location)
    primary.sql(f"CREATE TABLESPACE space LOCATION '{location}'",
                "CREATE TABLE spaced TABLESPACE space AS SELECT generate_series(1, 5000) i")
    run.basebackup("-D", target, "-R", "-c", "fast", *primary.address(), prefix=other_machine)
    (oid,) = os.listdir(os.path.join(target, "pg_tblspc"))
    assert os.readlink(os.path.join(target, "pg_tblspc", oid)) == location
    assert paths_below(elsewhere) == paths_below(location)
    standby = start_standby(clusters, pg, target, primary, wrap=other_machine)
    assert standby.sql("SELECT count(*) FROM spaced") == "5000"


def namespace(place, source, target):
    """The start of a command that runs with `source` mounted over `target`, for itself alone."""
    if not place.root or subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("needs a mount namespace (root)")
    return ["unshare", "-m", "sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"', source, target]


# ---- how it is copied


@pytest.mark.parametrize("method", ["gzip", "lz4", "zstd", "gzip:9", "zstd:level=5,workers=2", "lz4:level=3"])
def test_compressed_by_the_server(pg, primary, clusters, run, target, method):
    if pg.major < 15:
        pytest.skip("compression by the server came with 15")
    process = run.start_basebackup("-D", target, "-R", "-c", "fast", f"--compress=server-{method}", *primary.address())
    if process.wait() != 0 and "this build does not support" in process.err:
        pytest.skip("the server was built without it")
    succeeded(process)
    assert f"COMPRESSION '{method.split(':')[0]}'" in primary.log_text()
    nothing_of_ours(target)
    verify_backup(pg, primary.place, target)
    start_standby(clusters, pg, target, primary)


def test_rate_is_passed_on(primary, run, target):
    run.basebackup("-D", target, "-c", "fast", "-j1", "--max-rate=100M", *primary.address())
    assert re.search(r"BASE_BACKUP.*MAX_RATE '?102400", primary.log_text())


def test_label(primary, run, target):
    label = "it's a \"label\" \\ ☃"
    run.basebackup("-D", target, "-c", "fast", "-l", label, *primary.address())
    assert f"LABEL: {label}\n" in text_of(target, "backup_label")


def test_checksums_of_the_manifest(pg, primary, run, tmp):
    needs_manifest(pg)
    for algorithm in ("SHA224", "sha256", "SHA384", "SHA512", "CRC32C"):
        target = os.path.join(tmp, algorithm)
        run.basebackup("-D", target, "-c", "fast", f"--manifest-checksums={algorithm}", *primary.address())
        assert {f["Checksum-Algorithm"] for f in manifest(target)["Files"]} == {algorithm.upper()}
        verify_backup(pg, primary.place, target)


def test_manifest_without_checksums(pg, primary, run, target):
    needs_manifest(pg)
    run.basebackup("-D", target, "-c", "fast", "--manifest-checksums=NONE", *primary.address())
    assert not any("Checksum" in f for f in manifest(target)["Files"])
    verify_backup(pg, primary.place, target)


def test_manifest_with_encoded_names(pg, primary, run, target):
    needs_manifest(pg)
    run.basebackup("-D", target, "-c", "fast", "--manifest-force-encode", *primary.address())
    assert all("Encoded-Path" in f for f in manifest(target)["Files"])
    verify_backup(pg, primary.place, target)


def test_no_manifest(primary, run, target):
    run.basebackup("-D", target, "-c", "fast", "--no-manifest", *primary.address())
    assert "backup_manifest" not in os.listdir(target)


@pytest.mark.parametrize("options", [["--no-sync"], ["--sync-method=syncfs"], ["--sync-method=fsync"],
                                     ["--no-estimate-size"], ["--no-verify-checksums"], ["-s", "1"]],
                         ids=lambda o: o[0].lstrip("-"))
def test_copy_is_the_same_with(pg, primary, run, target, options):
    run.basebackup("-D", target, "-c", "fast", *options, *primary.address())
    verify_backup(pg, primary.place, target)


def test_two_at_once(pg, primary, clusters, run, tmp):
    targets = [os.path.join(tmp, name) for name in ("one", "two")]
    with content.Writer(primary):
        both = [run.start_basebackup("-D", t, "-R", "-c", "fast", *primary.address()) for t in targets]
        for process in both:
            succeeded(process)
    for target in targets:
        verify_backup(pg, primary.place, target)
        start_standby(clusters, pg, target, primary).stop()


# ---- slots


def test_temporary_slot(pg, primary, run, target):
    process = run.start_basebackup("-D", target, "-c", "fast", "-r", "32M", *primary.address())
    slot = wait_until(lambda: primary.rows("SELECT slot_name, temporary FROM pg_replication_slots"), "there is a slot")
    assert slot[0][1] == "t"
    succeeded(process)
    wait_until(lambda: not primary.slots(), "the slot is gone")


def test_no_slot(primary, run, target):
    run.basebackup("-D", target, "-c", "fast", "--no-slot", *primary.address(), env={"PGAPPNAME": "without a slot"})
    log = [line for line in primary.log_text().split("\n") if "without a slot" in line]
    assert any("START_REPLICATION" in line for line in log)
    assert not any("SLOT" in line for line in log)


def test_slot_made_and_kept(pg, primary, clusters, run, target):
    run.basebackup("-D", target, "-R", "-c", "fast", "-C", "-S", "forstandby", *primary.address())
    try:
        ((active, restart),) = primary.rows("SELECT active, restart_lsn IS NOT NULL FROM pg_replication_slots")
        assert (active, restart) == ("f", "t")
        assert conninfo.setting(conninfo.recovery_text(pg, target), "primary_slot_name") == "forstandby"
        standby = start_standby(clusters, pg, target, primary)
        assert primary.sql("SELECT active FROM pg_replication_slots") == "t"
        standby.stop()
    finally:
        wait_until(lambda: primary.sql("SELECT active FROM pg_replication_slots") == "f", "the slot is free")
        primary.sql("SELECT pg_drop_replication_slot('forstandby')")


def test_existing_slot(primary, run, target):
    primary.sql("SELECT pg_create_physical_replication_slot('mine', true)", "SELECT pg_switch_wal()")
    try:
        before = primary.sql("SELECT restart_lsn FROM pg_replication_slots")
        run.basebackup("-D", target, "-c", "fast", "-S", "mine", *primary.address())
        assert primary.sql(f"SELECT restart_lsn > '{before}' FROM pg_replication_slots") == "t"
    finally:
        wait_until(lambda: primary.sql("SELECT active FROM pg_replication_slots") == "f", "the slot is free")
        primary.sql("SELECT pg_drop_replication_slot('mine')")


# ---- what a person sees


def test_progress(primary, run, target):
    done = run.basebackup("-D", target, "-c", "fast", "-P", *primary.address())
    assert done.out == ""
    last = [line for line in re.split(r"[\r\n]+", done.err) if "%" in line][-1]
    numbers = re.search(r"(\d+)/(\d+) kB \(100%\)", last)
    assert numbers and numbers[1] == numbers[2], str(done)


def test_verbose(primary, run, target):
    done = run.basebackup("-D", target, "-c", "fast", "-v", *primary.address())
    assert done.out == ""
    name = os.path.basename(run.basebackup_path)
    assert all(line.startswith(f"{name}: ") for line in done.err.rstrip("\n").split("\n")), str(done)
    for words in (r"initiating base backup, waiting for checkpoint to complete", r"checkpoint completed",
                  r"write-ahead log start point: [0-9A-F]+/[0-9A-F]+ on timeline 1",
                  r"created temporary replication slot", r"write-ahead log end point: [0-9A-F]+/[0-9A-F]+", r"base backup completed"):
        assert re.search(words, done.err), f"{words}\n{done}"


# ---- connections


def test_uri(pg, primary, run, target):
    uri = f"postgresql://postgres@{primary.host}:{primary.port}/?sslmode=require"
    run.basebackup("-D", target, "-c", "fast", "-d", uri)
    verify_backup(pg, primary.place, target)


def test_unix_socket_and_environment(pg, primary, run, target):
    run.basebackup("-D", target, "-c", "fast",
                   env={"PGHOST": primary.place.sockets, "PGPORT": primary.port, "PGUSER": "postgres"})
    verify_backup(pg, primary.place, target)


def test_first_host_is_dead(pg, primary, run, target):
    hosts = f"host=127.0.0.1,127.0.0.1 port={free_port()},{primary.port} user=postgres"
    run.basebackup("-D", target, "-R", "-c", "fast", "-d", hosts)
    verify_backup(pg, primary.place, target)


def test_password_file(primary, run, tmp, target):
    line = f"{primary.host}:{primary.port}:*:keeper:it's a \\\\secret\n"
    passwords = primary.place.write(os.path.join(tmp, "passwords"), line)
    run.basebackup("-D", target, "-c", "fast", "-w", *primary.address("keeper"), env={"PGPASSFILE": passwords})


@pytest.mark.parametrize("options", [["-W"], []], ids=["asked for", "found out"])
def test_password_prompt(primary, run, target, options):
    """There is no terminal, so it is read from standard input; once, though there are two connections."""
    done = run.basebackup("-D", target, "-c", "fast", *options, *primary.address("keeper"), stdin="it's a \\secret\n")
    assert done.err.count("Password") == 1


# ---- damaged pages


@pytest.fixture
def damaged(pg, clusters):
    """A server with page checksums and one page that does not match."""
    server = clusters.create(pg, initdb=["--data-checksums"]).start()
    content.populate(server)
    path = os.path.join(server.data, server.sql("SELECT pg_relation_filepath('accounts')"))
    server.stop()
    with open(path, "r+b") as f:
        f.seek(3 * 8192 + 4000)
        f.write(b"damage")
    return server.start()


def test_damaged_page_is_reported_and_the_copy_kept(pg, damaged, run, target):
    if pg.major < 11:
        pytest.skip("checksums are verified from 11 on")
    done = failed(run.start_basebackup("-D", target, "-c", "fast", *damaged.address()), "checksum error occurred")
    assert done.err.startswith("WARNING:  checksum verification failed in file"), str(done)
    assert done.out == ""
    assert os.path.exists(os.path.join(target, "global", "pg_control"))


def test_damaged_page_is_not_looked_for(damaged, run, target):
    run.basebackup("-D", target, "-c", "fast", "--no-verify-checksums", *damaged.address())


def test_copy_has_good_checksums(pg, clusters, run, target):
    server = clusters.create(pg, initdb=["--data-checksums"]).start()
    content.populate(server)
    with content.Writer(server):
        run.basebackup("-D", target, "-R", "-c", "fast", *server.address())
    standby = start_standby(clusters, pg, target, server)
    standby.wait_replayed(server.lsn())
    standby.stop()
    if not os.path.exists(pg.program("pg_checksums")):
        pytest.skip("no pg_checksums of this version")
    server.place.call([pg.program("pg_checksums"), "--check", "-D", target])
