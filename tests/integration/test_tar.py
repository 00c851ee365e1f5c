"""Tar format: what others read from our archives is what the server has, and what pg_basebackup would have written."""

import glob
import os
import signal
import subprocess
import tarfile

import pytest

from pgrtest import content, installs
from pgrtest.checks import nothing_of_ours, start_standby, verify_backup
from pgrtest.content import hash_of
from pgrtest.place import wait_until
from pgrtest.programs import died_of, failed

SUFFIX = {"none": "", "gzip": ".gz", "lz4": ".lz4", "zstd": ".zst"}
READER = {".gz": ["gzip", "-dc"], ".lz4": ["lz4", "-dc"], ".zst": ["zstd", "-dcq"]}

# ways to ask for each, here and on the server
WAYS = {"none": [], "gzip": ["-z"], "gzip 1": ["-Z", "1"], "lz4": ["-Z", "lz4"], "lz4 9": ["-Z", "client-lz4:9"],
        "zstd": ["-Z", "zstd"], "zstd workers": ["-Z", "zstd:level=5,workers=3"], "zstd long": ["-Z", "zstd:long"]}


@pytest.fixture
def target(tmp):
    return os.path.join(tmp, "copy")


@pytest.fixture
def own(pg, clusters):
    """A server that nobody else writes to."""
    server = clusters.create(pg)
    server.keep_wal()
    server.start()
    content.populate(server)
    return server


def method_of(way):
    return way.split()[0]


def wal_name(pg):
    return "pg_wal" if pg.major >= 10 else "pg_xlog"


def expected_names(pg, method, stream=True, oids=()):
    names = {f"{name}.tar{SUFFIX[method]}" for name in ("base", *oids)}
    if stream:  # of the WAL, only gzip's is compressed
        names.add("pg_wal.tar" + (".gz" if method == "gzip" else ""))
    return names | ({"backup_manifest"} if pg.major >= 13 else set())


def plain(path, directory):
    """The archive without its compression, taken off by the format's own program."""
    program = READER.get(os.path.splitext(path)[1])
    if program is None:
        return path
    out = os.path.join(directory, os.path.basename(path).rsplit(".", 1)[0])
    with open(out, "wb") as f:
        subprocess.run([*program, path], stdout=f, check=True)
    return out


def unpack(place, path, where, scratch):
    """With stock tar, which must have nothing to say."""
    os.makedirs(where, exist_ok=True)
    done = subprocess.run(["tar", "-x", "-p", "-f", plain(path, scratch), "-C", where], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    for top, directories, files in os.walk(where):
        for name in [".", *directories, *files]:
            place.give(os.path.join(top, name))
    os.chmod(where, 0o700)


def unpack_all(pg, place, copy, where, scratch):
    """A data directory from base.tar and pg_wal.tar, with the manifest beside."""
    unpack(place, glob.glob(f"{copy}/base.tar*")[0], where, scratch)
    for wal in glob.glob(f"{copy}/pg_wal.tar*"):
        unpack(place, wal, os.path.join(where, wal_name(pg)), scratch)
    if os.path.exists(f"{copy}/backup_manifest"):
        place.give(os.link(f"{copy}/backup_manifest", f"{where}/backup_manifest") or f"{where}/backup_manifest")


def members(path, scratch):
    """[(name, type, mode, size)] in order; what tells of the time of the copy has no size."""
    changing = ("postgresql.auto.conf", "recovery.conf", "backup_label", "backup_manifest")
    with tarfile.open(plain(path, scratch)) as t:
        return [(m.name, m.type, m.mode, None if m.name in changing else m.size) for m in t]


def contents(path, scratch):
    """{name: bytes} of files that do not tell of the time of the copy."""
    changing = ("postgresql.auto.conf", "recovery.conf", "backup_label", "backup_manifest", "global/pg_control")
    with tarfile.open(plain(path, scratch)) as t:
        return {m.name: t.extractfile(m).read() for m in t
                if m.isfile() and m.name not in changing and not m.name.startswith("pg_wal/")}


def stock(pg, primary, target, *options):
    program, _ = installs.reader_of("pg_basebackup", pg.major)
    primary.place.call([program, "-D", target, "-Ft", "-c", "fast", *primary.address(), *options])


def verify_archives(pg, primary, target):
    """pg_verifybackup of 18 reads archives; but the pg_control that a manifest of 17 has it read is not of its form."""
    try:
        program, _ = installs.reader_of("pg_verifybackup", 18)
    except installs.Missing:
        return
    if pg.major >= 13 and pg.major != 17:
        primary.place.call([program, "--no-parse-wal", target])


# ---- what it is for

@pytest.mark.every_major
@pytest.mark.parametrize("way", WAYS)
def test_standby_from_archives(pg, primary, clusters, run, tmp, target, way):
    with content.Writer(primary):
        done = run.basebackup("-D", target, "-Ft", "-R", "-c", "fast", *WAYS[way], *primary.address())
    assert done.out == "" and done.err == ""
    assert set(os.listdir(target)) == expected_names(pg, method_of(way))
    verify_archives(pg, primary, target)
    data = os.path.join(tmp, "standby")
    unpack_all(pg, primary.place, target, data, tmp)
    nothing_of_ours(data)
    verify_backup(pg, primary.place, data)
    standby = start_standby(clusters, pg, data, primary)
    standby.wait_replayed(primary.lsn())
    assert content.fingerprint(standby) == content.fingerprint(primary)


@pytest.mark.every_major
@pytest.mark.parametrize("options", [["-X", "none"], ["-X", "fetch"], ["-X", "fetch", "-R"], ["-X", "stream", "-z"]],
                         ids=lambda o: " ".join(o))
def test_the_same_as_the_stock_program(pg, own, run, tmp, target, options):
    """Listings in the same order, and the same bytes, of a server at rest with a tablespace."""
    location = own.place.give(os.mkdir(f"{tmp}/space") or f"{tmp}/space")
    own.sql(f"CREATE TABLESPACE space LOCATION '{location}'",
            "CREATE TABLE spaced TABLESPACE space AS SELECT generate_series(1, 5000) i", "CHECKPOINT")
    theirs, scratches = f"{tmp}/stock", [f"{tmp}/a", f"{tmp}/b"]
    stock(pg, own, theirs, *options)
    run.basebackup("-D", target, "-Ft", "-c", "fast", *options, *own.address())
    assert set(os.listdir(target)) == set(os.listdir(theirs))
    for path in scratches:
        os.mkdir(path)
    for name in os.listdir(target):
        if ".tar" not in name:
            continue
        found = [members(f"{copy}/{name}", scratch) for copy, scratch in zip((target, theirs), scratches)]
        if name.startswith("base"):
            # each copy begins in a segment of its own
            found = [[m for m in listing if "pg_wal/" not in m[0]] for listing in found]
            data = [contents(f"{copy}/{name}", scratch) for copy, scratch in zip((target, theirs), scratches)]
            assert {k: v for k, v in data[0].items()} == {k: v for k, v in data[1].items()}
        elif name.startswith("pg_wal"):
            found = [[(len(m[0]), *m[1:]) for m in listing if m[0].count("/") == 0] for listing in found]
        assert found[0] == found[1], name
        assert os.stat(f"{target}/{name}").st_mode == os.stat(f"{theirs}/{name}").st_mode


@pytest.mark.parametrize("way", WAYS)
def test_every_byte(pg, own, run, tmp, target, way):
    """What comes out of an archive is what a copy into a directory has."""
    directory = f"{tmp}/directory"
    run.basebackup("-D", directory, "-X", "none", "-c", "fast", *own.address())
    run.basebackup("-D", target, "-Ft", "-X", "none", "-c", "fast", *WAYS[way], *own.address())
    unpack(own.place, glob.glob(f"{target}/base.tar*")[0], f"{tmp}/data", tmp)
    found = {os.path.relpath(os.path.join(top, name), f"{tmp}/data"): hash_of(os.path.join(top, name))
             for top, _, files in os.walk(f"{tmp}/data") for name in files}
    changing = {"backup_label", "backup_manifest", "global/pg_control", "tablespace_map"}
    wanted = {os.path.relpath(os.path.join(top, name), directory): hash_of(os.path.join(top, name))
              for top, _, files in os.walk(directory) for name in files}
    assert {k: v for k, v in found.items() if k not in changing} == {k: v for k, v in wanted.items() if k not in changing}


@pytest.mark.parametrize("method", ["gzip", "lz4", "zstd"])
def test_compressed_by_the_server(pg, primary, run, tmp, target, method):
    if pg.major < 15:
        failed(run.start_basebackup("-D", target, "-Ft", "-Z", f"server-{method}", *primary.address()),
               "server does not support server-side compression")
        return
    run.basebackup("-D", target, "-Ft", "-c", "fast", "-Z", f"server-{method}", *primary.address())
    names = {f"base.tar{SUFFIX[method]}", "pg_wal.tar", "backup_manifest"}
    assert set(os.listdir(target)) == names
    verify_archives(pg, primary, target)
    unpack_all(pg, primary.place, target, f"{tmp}/data", tmp)
    verify_backup(pg, primary.place, f"{tmp}/data")


def test_a_tablespace_is_an_archive(pg, clusters, own, run, tmp, target):
    location = own.place.give(os.mkdir(f"{tmp}/space") or f"{tmp}/space")
    own.sql(f"CREATE TABLESPACE space LOCATION '{location}'",
            "CREATE TABLE spaced TABLESPACE space AS SELECT generate_series(1, 5000) i")
    oid = own.sql("SELECT oid FROM pg_tablespace WHERE spcname = 'space'")
    run.basebackup("-D", target, "-Ft", "-R", "-z", "-c", "fast", *own.address())
    assert set(os.listdir(target)) == expected_names(pg, "gzip", oids=[oid])
    verify_archives(pg, own, target)
    data = f"{tmp}/standby"
    unpack_all(pg, own.place, target, data, tmp)
    unpack(own.place, f"{target}/{oid}.tar.gz", f"{tmp}/moved", tmp)
    with open(f"{data}/tablespace_map", encoding="utf-8") as f:
        assert f.read() == f"{oid} {location}\n"
    own.place.write(f"{data}/tablespace_map", f"{oid} {tmp}/moved\n")
    standby = start_standby(clusters, pg, data, own)
    standby.wait_replayed(own.lsn())
    assert standby.sql("SELECT count(*) FROM spaced") == "5000"


def test_wal_of_several_segments_and_timelines(pg, own, run, tmp, target):
    """Names and markers as the stock program has them, while segments are finished."""
    own.new_timeline()
    options = ["-Ft", "-c", "fast", "-r", "2M"]
    process = run.start_basebackup("-D", target, *options, *own.address())
    own.sender_pid("backup")
    for _ in range(3):
        own.switch_wal()
    assert process.wait() == 0, str(process)
    with tarfile.open(f"{target}/pg_wal.tar") as t:
        names = t.getnames()
    assert names[:2] == ["00000002.history", "archive_status/00000002.history.done"]
    segments = [n for n in names if len(n) == 24]
    assert len(segments) >= 3
    for number, name in enumerate(segments[:-1]):
        assert names[2 + 2 * number:4 + 2 * number] == [name, f"archive_status/{name}.done"]
    unpack(own.place, f"{target}/pg_wal.tar", f"{tmp}/wal", tmp)
    for name in segments[:-1]:
        assert hash_of(f"{tmp}/wal/{name}") == hash_of(own.wal_path(name))


# ---- standard output

@pytest.mark.every_major
@pytest.mark.parametrize("way", ["none", "gzip", "zstd"])
def test_standard_output(pg, primary, clusters, run, tmp, way):
    unzip = {"none": "cat", "gzip": "gzip -dc", "zstd": "zstd -dcq"}[way]
    data = os.path.join(tmp, "standby")
    primary.place.give(os.mkdir(data, 0o700) or data)
    script = f'set -o pipefail; "$@" | {unzip} | tar -x -p -C {data}'
    process = run.start("/bin/bash", "-c", script, "sh", run.basebackup_path, "-D", "-", "-Ft", "-R", "-X", "fetch",
                        "-c", "fast", *WAYS[way], *primary.address())
    assert process.wait() == 0 and process.err == "", str(process)
    nothing_of_ours(data)
    verify_backup(pg, primary.place, data)
    start_standby(clusters, pg, data, primary)


def test_standard_output_as_a_file(pg, own, run, tmp):
    """The same listing as the stock program's, the manifest and -R's files included."""
    process = run.basebackup("-D", "-", "-Ft", "-R", "-X", "none", "-c", "fast", *own.address())
    ours = os.path.join(process.directory, "stdout")
    program, _ = installs.reader_of("pg_basebackup", pg.major)
    theirs = os.path.join(tmp, "theirs.tar")
    with open(theirs, "wb") as f:
        subprocess.run(own.place.command([program, "-D", "-", "-Ft", "-R", "-X", "none", "-c", "fast",
                                          *own.address()]), stdout=f, env=own.place.environment(), cwd=tmp, check=True)
    assert members(ours, tmp) == members(theirs, tmp)
    assert contents(ours, tmp) == contents(theirs, tmp)


def test_standard_output_takes_one_archive(pg, own, run, tmp):
    location = own.place.give(os.mkdir(f"{tmp}/space") or f"{tmp}/space")
    own.sql(f"CREATE TABLESPACE space LOCATION '{location}'")
    process = run.start_basebackup("-D", "-", "-Ft", "-X", "none", "-c", "fast", *own.address())
    failed(process, "can only write single tablespace to stdout, database has 2")
    assert process.out == ""


def test_the_reader_goes_away(primary, run):
    process = run.start("/bin/bash", "-c", '"$@" | head -c 100000 | wc -c; exit ${PIPESTATUS[0]}', "sh",
                        run.basebackup_path, "-D", "-", "-Ft", "-X", "fetch", "-c", "fast", *primary.address())
    failed(process, "could not write to standard output: Broken pipe")
    assert process.out.strip() == "100000"


def test_a_reader_that_does_not_read(primary, run):
    """A signal ends the run, although the pipe is full."""
    reading, writing = os.pipe()
    try:
        process = subprocess.Popen(primary.place.command([run.basebackup_path, "-D", "-", "-Ft", "-X", "fetch", "-c",
                                                          "fast", *primary.address()]),
                                   stdout=writing, stderr=subprocess.DEVNULL, env=primary.place.environment())
        os.close(writing)
        primary.sender_pid("backup")
        os.read(reading, 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == -signal.SIGTERM
    finally:
        os.close(reading)


# ---- failures

def nothing_left(tmp):
    assert os.listdir(tmp) == []


@pytest.mark.parametrize("way", ["none", "gzip", "zstd long"])
def test_a_lost_connection_leaves_nothing(own, run, tmp, target, way):
    process = run.start_basebackup("-D", target, "-Ft", "-c", "fast", "-r", "1M", *WAYS[way], *own.address())
    pid = own.sender_pid("backup")
    wait_until(lambda: glob.glob(f"{target}/base.tar*") or not process.running(), "the copy has begun")
    own.sql(f"SELECT pg_terminate_backend({pid})")
    failed(process, "terminating connection due to administrator command")
    nothing_left(tmp)


def test_a_signal_leaves_nothing(own, run, tmp, target):
    process = run.start_basebackup("-D", target, "-Ft", "-c", "fast", "-r", "1M", "-z", *own.address())
    own.sender_pid("backup")
    wait_until(lambda: glob.glob(f"{target}/base.tar*") or not process.running(), "the copy has begun")
    process.signal(signal.SIGTERM)
    died_of(process, signal.SIGTERM)
    nothing_left(tmp)


@pytest.mark.parametrize("way", ["none", "gzip"])
def test_a_full_disk(primary, run, small_disk, way):
    disk = small_disk(20 if way == "none" else 4)
    process = run.start_basebackup("-D", f"{disk}/copy", "-Ft", "-X", "fetch", "-c", "fast", *WAYS[way],
                                   *primary.address())
    failed(process, f"{disk}/copy/base.tar", "No space left on device")
    nothing_left(disk)


def test_a_directory_in_use(own, run, tmp, target):
    own.place.give(os.mkdir(target) or target)
    own.place.write(f"{target}/base.tar", "precious")
    failed(run.start_basebackup("-D", target, "-Ft", *own.address()), f'directory "{target}" exists but is not empty')
    with open(f"{target}/base.tar", encoding="utf-8") as f:
        assert f.read() == "precious"


def test_it_is_one_stream(primary, run, tmp, target):
    failed(run.start_basebackup("-D", target, "-Ft", "-j", "4", *primary.address()),
           "tar format and more than one job cannot be used together")
    nothing_left(tmp)


def test_without_sync(pg, primary, run, target):
    run.basebackup("-D", target, "-Ft", "--no-sync", "-c", "fast", *primary.address())
    assert set(os.listdir(target)) == expected_names(pg, "none")
    verify_archives(pg, primary, target)


def test_without_manifest(pg, primary, run, target):
    run.basebackup("-D", target, "-Ft", "--no-manifest", "-c", "fast", *primary.address())
    assert set(os.listdir(target)) == {"base.tar", "pg_wal.tar"}
