"""pgr-basebackup --verify-transfer: what the network damages is read again, and never stays."""

import os
import random

import pytest

from pgrtest import content
from pgrtest.checks import paths_below, start_standby, verify_backup
from pgrtest.programs import ERROR_LINE, failed
from pgrtest.relay import Relay, socket_of

LANES = ["-j", "2", "-c", "fast"]
VERIFIED = [*LANES, "--verify-transfer"]

# What two backups of one quiet cluster differ in: times, positions, counters.
VARIES = {"backup_label", "backup_manifest", "global/pg_control"}

# More than two lanes take at first, so that both begin with it.
CONFIGURATION_BYTES = 32_000_000


@pytest.fixture
def target(tmp):
    return os.path.join(tmp, "copy")


@pytest.fixture
def quiet(pg, clusters):
    """A server without page checksums, whose largest file is its configuration."""
    server = clusters.create(pg, initdb=["--no-data-checksums"] if pg.major >= 18 else [], autovacuum="off").start()
    content.populate(server)
    with open(os.path.join(server.data, "postgresql.conf"), "ab") as f:
        for i in range(CONFIGURATION_BYTES // 60):
            f.write(b"\n# %057d" % i)
        f.write(b"\n")
    server.sql("VACUUM", "CHECKPOINT")
    return server


def of_interest(top):
    return {p for p in paths_below(top) if not p.startswith("pg_wal/") and p not in VARIES
            and not p.endswith("pg_internal.init")}  # a cache, which the lanes' own sessions may make


def differences(server, target):
    """Files of the copy that are not the server's, byte for byte."""
    def same(path):
        return content.hash_of(os.path.join(target, path)) == content.hash_of(os.path.join(server.data, path))

    return [path for path in sorted(of_interest(target))
            if os.path.isfile(os.path.join(target, path)) and not same(path)]


@pytest.mark.every_major
def test_nothing_is_damaged(pg, quiet, clusters, run, tmp, target):
    plain = os.path.join(tmp, "plain")
    run.basebackup("-D", plain, *LANES, *quiet.address())
    done = run.basebackup("-D", target, *VERIFIED, *quiet.address())
    assert done.out == "" and done.err == ""
    verify_backup(pg, quiet.place, target)
    assert differences(quiet, target) == []
    assert of_interest(target) == of_interest(plain)

    follower = os.path.join(tmp, "follower")
    run.basebackup("-D", follower, "-R", *VERIFIED, *quiet.address())
    standby = start_standby(clusters, pg, follower, quiet)
    standby.wait_replayed(quiet.lsn())
    assert content.fingerprint(standby) == content.fingerprint(quiet)


@pytest.mark.every_major
def test_a_changed_byte_of_the_configuration(pg, place, quiet, run, tmp, target):
    """Only lanes get as far as this byte, and they begin with the largest file."""
    with Relay(place, socket_of(quiet), flip_byte=3_000_000) as relay:
        run.basebackup("-D", target, *LANES, *relay.address())
    # without the option it gets into the copy, and into its manifest
    assert differences(quiet, target) == ["postgresql.conf"]
    verify_backup(pg, place, target)

    mended = os.path.join(tmp, "mended")
    with Relay(place, socket_of(quiet), flip_byte=3_000_000) as relay:
        done = run.basebackup("-D", mended, *VERIFIED, *relay.address())
    assert 'of file "postgresql.conf" came damaged' in done.err
    assert "is connected again" in done.err
    assert differences(quiet, mended) == []
    verify_backup(pg, place, mended)


def test_changed_bytes_all_over(pg, place, quiet, run, target):
    """Every connection has a byte changed, somewhere.  Where that breaks what holds the backup open, the run ends."""
    chance = random.Random(4711)
    good = 0
    for _ in range(6):
        position = int(chance.expovariate(1 / 6_000_000)) + 6000
        with Relay(place, socket_of(quiet), flip_byte=position, times=1000) as relay:
            process = run.start_basebackup("-D", target, *VERIFIED, *relay.address())
            code = process.wait()
        if code == 0:
            good += 1
            assert differences(quiet, target) == [], f"byte {position}\n{process}"
            verify_backup(pg, place, target)
            place.discard(target)
        else:
            assert code == 1 and ERROR_LINE.search(process.err), f"byte {position}\n{process}"
            assert not os.path.exists(target), f"byte {position}\n{process}"
    assert good >= 3


def test_every_connection_damages(pg, place, quiet, run, target):
    """No lane gets as much as a row: the file is named, and nothing stays."""
    with Relay(place, socket_of(quiet), flip_byte=100_000, times=1000) as relay:
        process = failed(run.start_basebackup("-D", target, "-X", "none", *VERIFIED, *relay.address()), "came damaged")
    assert 'of file "' in process.err
    assert not os.path.exists(target)


def test_a_single_stream(pg, primary, run, target):
    """It has the server's manifest, or it is refused."""
    options = ["-D", target, "-c", "fast", "-j", "1", "--verify-transfer", *primary.address()]
    if pg.major < 13:
        failed(run.start_basebackup(*options), "manifest", "--jobs")
        assert not os.path.exists(target)
        return
    failed(run.start_basebackup(*options, "--no-manifest"), "manifest", "--jobs")
    failed(run.start_basebackup(*options, "--manifest-checksums=none"), "manifest", "--jobs")
    assert not os.path.exists(target)
    done = run.basebackup(*options)
    assert done.err == ""
    verify_backup(pg, primary.place, target)
