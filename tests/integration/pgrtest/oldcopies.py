"""Kinds of directories that a delta finds: each function makes one of scene.target, and changes the primary since.

SOUND are those whose pages are what WAL made of them: what summaries tell of suffices.  DISTURBED are all others.
"""

import os
import random
import shutil

from . import content
from .checks import start_standby
from .place import wait_until
from .trees import disturb, files_below, picture, relations

SOUND, DISTURBED = {}, {}


def sound(function):
    SOUND[function.__name__.replace("_", " ")] = function
    return function


def disturbed(function):
    DISTURBED[function.__name__.replace("_", " ")] = function
    return function


# ---- standbys that were left behind


@sound
def a_fresh_copy(scene):
    scene.seed()


@sound
def stale_by_minutes(scene):
    scene.seed()
    standby = scene.standby()
    scene.change()
    standby.wait_replayed(scene.primary.lsn())
    standby.stop()
    scene.change()


@sound
def killed_while_it_replayed(scene):
    scene.seed()
    standby = scene.standby()
    with content.Writer(scene.primary) as writer:
        writer.wait_for(300)
        standby.kill()
        writer.wait_for(300)


@sound
def stale_by_recycled_wal(scene):
    scene.seed()
    scene.standby().stop()
    scene.change()
    scene.forget_wal()
    scene.change()


@sound
def database_dropped_and_made_again(scene):
    scene.seed()
    scene.standby().stop()
    oid = "SELECT oid FROM pg_database WHERE datname = 'doomed'"
    old = scene.primary.sql(oid)
    scene.primary.sql("DROP DATABASE doomed", "CREATE DATABASE doomed", "CREATE DATABASE another")
    scene.primary.sql("CREATE TABLE here AS SELECT i AS id, 'new' AS note FROM generate_series(1, 3000) i", db="doomed")
    assert scene.primary.sql(oid) != old and os.path.isdir(scene.path("base", old))


@sound
def tables_cut_and_extended_again(scene):
    scene.seed()
    scene.standby().stop()
    queries = ["TRUNCATE cut", "INSERT INTO cut SELECT i, 'again' FROM generate_series(1, 30000) i",
               "DELETE FROM shrunk WHERE id > 5000", "VACUUM shrunk",
               "INSERT INTO shrunk SELECT i, 'new' FROM generate_series(1, 7000) i",
               "DELETE FROM big WHERE id > 60000", "VACUUM big", "DELETE FROM accounts", "VACUUM accounts"]
    path = scene.primary.sql("SELECT pg_relation_filepath('big')")
    scene.primary.sql(*queries, "CHECKPOINT")
    assert os.path.getsize(os.path.join(scene.primary.data, path)) < os.path.getsize(scene.path(path))


@sound
def with_strays(scene):
    """Files, directories, links, pipes and other names of files, anywhere; what they lead to is nobody's business here."""
    scene.seed()
    outside = scene.directory("outside")
    for name in ("kept", "other"):
        scene.place.write(os.path.join(outside, name), name * 1000)
    scene.protect(outside, picture)
    place, path = scene.place, scene.path
    base = os.path.dirname(relations(scene.target)[0])
    for name in ("stray", "base/stray", f"{base}/999999", f"{base}/999999_fsm", f"{base}/1259.7", f"{base}/t3_999",
                 "global/stray", "pg_xact/0777", "pg_wal/000000010000000000000001", "pg_wal/archive_status/stray",
                 "pg_tblspc/stray", "pg_replslot/stray", "backup_label.old", "standby.signal.old", ".hidden",
                 "base/pgsql_tmp_stray", "postmaster.opts", "pg_stat/pgstat.stat"):
        place.write(path(name), "stray")
    for name in ("dir", "dir/in", "dir/in/in", "base/999998", "pg_replslot/gone", "base/pgsql_tmp", "pg_wal/stray"):
        place.give(os.mkdir(path(name)) or path(name))
    for name in ("dir/in/in/file", "base/999998/1259", "base/999998/PG_VERSION", "pg_replslot/gone/state",
                 "base/pgsql_tmp/pgsql_tmp1.0"):
        place.write(path(name), "stray")
    os.mkfifo(path("pipe"))
    os.mkfifo(path(base, "999997"))
    for name, to in (("link", outside), ("base/999996", outside), ("dangling", "/nowhere/at/all"), ("up", ".."),
                     (f"{base}/999995", os.path.join(outside, "kept")), ("pg_tblspc/999994", outside),
                     ("pg_wal/link", outside)):
        os.symlink(to, path(name))
    os.link(os.path.join(outside, "other"), path(base, "999993"))
    for name in ("pipe", f"{base}/999997", "link", "base/999996", "dangling", f"{base}/999995", "pg_tblspc/999994"):
        place.give(path(name))
    scene.change()


@sound
def relations_that_nobody_needs(scene):
    """It was promoted before it became a standby again: unlogged tables, init forks, a cache."""
    scene.seed()
    standby = scene.standby()
    scratch = standby.sql("SELECT pg_relation_filepath('scratch')")
    standby.stop()
    scene.place.write(scene.path(scratch), "x" * 8192 * 3)
    scene.place.write(scene.path("global", "pg_internal.init"), "x" * 1000)
    scene.primary.sql("TRUNCATE scratch")


# ---- other histories


@disturbed
def promoted_and_written_to(scene):
    scene.seed()
    standby = scene.standby()
    standby.promote()
    scene.change(standby)
    scene.change()
    scene.change()
    standby.stop()


@disturbed
def promoted_and_killed(scene):
    scene.seed()
    standby = scene.standby()
    standby.promote()
    scene.change(standby)
    standby.sql("CHECKPOINT")
    scene.change()
    standby.sql("UPDATE accounts SET balance = -1")
    standby.kill()


def _former_primary(scene):
    """The standby was promoted, the primary did not notice; now it is to follow."""
    first = scene.primary
    scene.seed()
    second = scene.standby()
    second.promote()
    scene.change(first)
    first.sql("UPDATE big SET a = 'lost' WHERE id % 5000 = 0", "CREATE DATABASE lost")
    scene.change(second)
    scene.primary, scene.target = second, first.data
    return first


@disturbed
def a_former_primary(scene):
    _former_primary(scene).stop()


@disturbed
def a_former_primary_that_crashed(scene):
    first = _former_primary(scene)
    first.sql("CHECKPOINT", "UPDATE accounts SET balance = -1", "DELETE FROM shrunk")
    first.kill()


# ---- broken ones


@disturbed
def missing(scene):
    scene.change()


@disturbed
def empty(scene):
    scene.place.give(os.mkdir(scene.target, 0o700) or scene.target)


@disturbed
def half_copied(scene):
    """By a program that was killed: no pg_control, files that are missing, and such that end too early."""
    scene.seed()
    for n, name in enumerate(files_below(scene.target)):
        if name.startswith(("pg_wal/", "global/pg_control", "backup_manifest")) or n % 3 == 0:
            os.unlink(scene.path(name))
        elif n % 3 == 1:
            os.truncate(scene.path(name), os.path.getsize(scene.path(name)) // 2)
    if not os.path.exists(scene.path("PG_VERSION")):
        scene.place.write(scene.path("PG_VERSION"), f"{scene.pg.major}\n")
    scene.change()


@disturbed
def bytes_flipped(scene):
    """Everywhere, while sizes and times stayed as they were."""
    scene.cold_copy()
    rng = random.Random(1)
    for n, name in enumerate(files_below(scene.target)):
        if name in ("PG_VERSION", "global/pg_control") or name.endswith(".conf") or os.path.getsize(scene.path(name)) == 0:
            continue
        if n % 2 == 0 or "/" not in name or not name.startswith("base/"):
            disturb(scene.path(name), rng, 3)
    big = scene.path(scene.primary.sql("SELECT pg_relation_filepath('big')"))
    with open(big, "r+b") as f:
        f.seek(1 << 20)
        f.write(bytes(300_000))  # and a stretch that a disk has lost


@disturbed
def longer_and_shorter(scene):
    """By a byte, by pages, by megabytes; sparse, and in the middle of a page."""
    scene.cold_copy()
    names = relations(scene.target, 8192)
    for n, name in enumerate(names):
        size = os.path.getsize(scene.path(name))
        os.truncate(scene.path(name), [size, size + 1, size - 1, size + 8192, size - 8192, size + 5_000_000, 0,
                                       size // 3][n % 8])
    for name in names[8::16]:
        with open(scene.path(name), "ab") as f:
            f.write(b"x" * 12345)


@disturbed
def of_other_types(scene):
    """What should be a file is a directory, a pipe or a link, and the other way round."""
    scene.cold_copy()
    outside, place, path = scene.directory("outside"), scene.place, scene.path
    names = iter(relations(scene.target, 8192)[10:])

    def taken():
        name = next(names)
        os.rename(path(name), os.path.join(outside, os.path.basename(name)))
        return name

    for name in (taken(), "pg_hba.conf"):
        if os.path.exists(path(name)):
            os.unlink(path(name))
        place.give(os.mkdir(path(name)) or path(name))
        place.write(path(name, "in"), "stray")
    for name in (taken(), taken()):
        os.mkfifo(path(name))
        place.give(path(name))
    for name in (taken(), taken()):  # the right content, but it lies elsewhere
        os.symlink(os.path.join(outside, os.path.basename(name)), path(name))
    os.symlink("/nowhere/at/all", path(taken()))
    for name in ("pg_multixact/members", "pg_stat"):
        shutil.rmtree(path(name))
        place.write(path(name), "stray")
    oid = scene.primary.sql("SELECT oid FROM pg_database WHERE datname = 'doomed'")
    os.rename(path("base", oid), os.path.join(outside, "database"))
    os.symlink(os.path.join(outside, "database"), path("base", oid))
    os.rename(path("pg_xact"), os.path.join(outside, "pg_xact"))
    os.symlink(os.path.join(outside, "pg_xact"), path("pg_xact"))
    scene.change()
    scene.protect(outside, picture)


@disturbed
def files_with_several_names(scene):
    """A program that saves space has made one of files that were the same; and a snapshot has names of others.

    One of the two is not to be written to when the other is meant.
    """
    scene.cold_copy()
    snapshot = scene.directory("snapshot")
    names, known = relations(scene.target, 8192), {}
    for name in names:
        known.setdefault(content.hash_of(scene.path(name)), []).append(name)
    twins = [same for same in known.values() if len(same) > 1]
    assert len(twins) > 20
    for first, *others in twins:
        for name in others:
            os.unlink(scene.path(name))
            os.link(scene.path(first), scene.path(name))
    for name in names[::4]:
        if os.stat(scene.path(name)).st_nlink == 1:
            os.link(scene.path(name), os.path.join(snapshot, name.replace("/", "_")))
    one, other = (scene.path(scene.primary.sql(f"SELECT pg_relation_filepath('{t}')")) for t in ("cut", "shrunk"))
    os.unlink(one)
    os.link(other, one)
    for db in ("doomed", "postgres"):
        scene.primary.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) i", "ANALYZE", db=db)
    scene.change()
    scene.protect(snapshot, lambda path: {name: entry[2:4] for name, entry in picture(path).items() if name})


@disturbed
def with_other_modes(scene):
    scene.cold_copy()
    for n, name in enumerate(files_below(scene.target)):
        if not name.endswith(".conf") or name == "postgresql.auto.conf":
            os.chmod(scene.path(name), [0o600, 0o640, 0o644, 0o777][n % 4])
    empty = [name for name in files_below(scene.target) if os.path.getsize(scene.path(name)) == 0]
    assert len(empty) > 20
    for name in empty:
        os.chmod(scene.path(name), 0o644)
    for n, (path, directories, _) in enumerate(os.walk(scene.target)):
        for name in directories:
            os.chmod(os.path.join(path, name), [0o755, 0o777, 0o750][n % 3])
    os.chmod(scene.target, 0o755)
    scene.change()


@disturbed
def leftovers_of_a_crash(scene):
    """A standby that was killed, and what tools had left there before."""
    scene.seed()
    start_standby(scene.clusters, scene.pg, scene.target, scene.primary).kill()
    assert os.path.exists(scene.path("postmaster.pid"))
    label = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n"
    for name in ("backup_label", "backup_label.old", "tablespace_map", "tablespace_map.old"):
        scene.place.write(scene.path(name), label if "label" in name else "")
    scene.place.write(scene.path("recovery.signal" if scene.pg.major >= 12 else "recovery.conf"), "")
    scene.place.write(scene.path("backup_manifest.tmp"), "{")
    scene.place.write(scene.path("backup_manifest"), "{}")
    scene.change()
    wait_until(lambda: not scene.primary.senders(), "the standby's WAL sender is gone")
