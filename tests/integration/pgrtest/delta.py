"""A primary, and a directory that is to be made over to its standby (--delta)."""

import os
import subprocess

from . import content, installs
from .checks import nothing_of_ours, start_standby, verify_backup
from .place import PATIENCE, wait_until
from .server import wal_segsize
from .trees import SEGMENT, assert_only_new_wal, assert_same

TABLES = """
CREATE TABLE big AS SELECT i AS id, md5(i::text) AS a, md5((i + 1)::text) AS b FROM generate_series(1, 120000) i;
CREATE INDEX ON big (a);
CREATE TABLE cut AS SELECT i AS id, md5(i::text) AS note FROM generate_series(1, 20000) i;
CREATE TABLE shrunk AS SELECT i AS id, md5(i::text) AS note FROM generate_series(1, 20000) i;
CREATE TABLE dropped AS SELECT i AS id, md5(i::text) AS note FROM generate_series(1, 20000) i;
CREATE DATABASE doomed
"""
CHANGES = """
UPDATE big SET a = b WHERE id % 3000 = %d;
UPDATE accounts SET balance = balance + 1 WHERE id % 97 = %d;
INSERT INTO ledger (account, note) SELECT i, repeat(md5(i::text), 8) FROM generate_series(1, 3000) i;
DELETE FROM shrunk WHERE id > 10000;
VACUUM shrunk;
INSERT INTO shrunk SELECT i, md5((i + %d)::text) FROM generate_series(1, 2000) i;
TRUNCATE cut;
INSERT INTO cut SELECT i, md5((i * 7)::text) FROM generate_series(1, 5000) i;
DROP TABLE IF EXISTS dropped;
CREATE TABLE made%d AS SELECT i AS id, md5(i::text) AS note FROM generate_series(1, 5000) i;
CREATE INDEX ON made%d (note);
CREATE UNLOGGED TABLE forgotten%d AS SELECT i AS id FROM generate_series(1, 5000) i;
VACUUM FULL documents
"""
FAST = ["-c", "fast"]


def _statements(text):
    return [query for query in text.strip().split(";\n") if query]


def _filled(pg, clusters):
    """The directory of a stopped server with all this; it is made once."""
    key = (pg.bindir, "delta")
    if key not in clusters.templates:
        settings = {"summarize_wal": "on"} if pg.major >= 17 else {}
        server = clusters.create(pg, initdb=["--data-checksums", *wal_segsize(pg, 1)], autovacuum="off", **settings)
        server.keep_wal()
        server.start()
        content.populate(server)
        server.sql(*_statements(TABLES))
        server.sql("CREATE TABLE here AS SELECT i AS id, md5(i::text) AS note FROM generate_series(1, 10000) i",
                   "CREATE UNIQUE INDEX ON here (id)", db="doomed")
        for db in ("postgres", "doomed", "template1"):
            server.sql("VACUUM", db=db)  # the first one changes nearly every page
        server.stop()
        kept = clusters.place.directory(memory=True)
        os.rmdir(kept)
        os.rename(server.data, kept)
        clusters.templates[key] = kept
    return clusters.templates[key]


class Scene:
    """
    primary   the server that the directory is to follow
    target    the directory; it is missing at first
    spaces    {location of a tablespace: where it lies here}, of every run
    """

    def __init__(self, pg, clusters, run, tmp):
        self.pg, self.clusters, self.run, self.tmp, self.place = pg, clusters, run, tmp, clusters.place
        self.primary = clusters.copy_of(pg, _filled(pg, clusters)).start()
        self.target = os.path.join(tmp, "standby")
        self.spaces = {}
        self._changes = self._copies = 0
        self._through = None  # a relay that the last run has put into the connection string of the standby
        self._expected = []  # [(function, arguments, what it is to return)]

    # ---- what happens before

    def path(self, *names):
        return os.path.join(self.target, *names)

    def directory(self, *names, exists=True):
        """One of the test's own."""
        path = os.path.join(self.tmp, *names)
        if exists:
            self.place.give(os.mkdir(path, 0o700) or path)
        return path

    def mapping(self, suffix=""):
        return [word for location, here in self.spaces.items() for word in ("-T", f"{location}={here}{suffix}")]

    def seed(self, *options):
        """A fresh standby's directory."""
        self.run.basebackup("-D", self.target, "-R", "--no-sync", *FAST, *self.mapping(), *options, *self.primary.address())

    def cold_copy(self):
        """The directory of the server as it was before it was started; that is quicker than to seed it."""
        self.place.copy_tree(_filled(self.pg, self.clusters), self.target)

    def standby(self):
        standby = start_standby(self.clusters, self.pg, self.target, self.primary)
        standby.wait_replayed(self.primary.lsn())
        return standby

    def change(self, server=None):
        """Of everything something, on the primary."""
        self._changes += 1
        (server or self.primary).sql(*[q.replace("%d", str(self._changes)) for q in _statements(CHANGES)])

    def forget_wal(self):
        """The primary has then nothing of the WAL that there is now; from now on it keeps it again."""
        name = "wal_keep_size" if self.pg.major >= 13 else "wal_keep_segments"
        self.primary.sql(f"ALTER SYSTEM SET {name} = 0", "SELECT pg_reload_conf()")
        before = {name for name in os.listdir(self.primary.wal_path()) if SEGMENT.fullmatch(name)}

        def forgotten():
            self.primary.switch_wal()
            self.primary.sql("CHECKPOINT")
            return not before & set(os.listdir(self.primary.wal_path()))

        wait_until(forgotten, "the old WAL is removed")
        self.primary.sql(f"ALTER SYSTEM RESET {name}", "SELECT pg_reload_conf()")

    def space(self, name, here=True):
        """Makes a tablespace on the primary; its location.  `here`: it is mapped to a directory of this name here."""
        location = self.place.directory()
        self.primary.sql(f"CREATE TABLESPACE {name} LOCATION '{location}'",
                         f"CREATE TABLE in_{name} TABLESPACE {name} AS SELECT i AS id, md5(i::text) AS note "
                         "FROM generate_series(1, 20000) i", f"CREATE INDEX ON in_{name} (note) TABLESPACE {name}")
        if here:
            self.spaces[location] = os.path.join(self.tmp, name)
        return location

    def protect(self, path, picture):
        """This is none of the run's business: picture(path) is to be the same afterwards."""
        self._expected.append((picture, path, picture(path)))

    # ---- the run

    def command(self, *options, server=None):
        """Arguments; `server` may be a relay."""
        self._through = server
        way = [] if any(str(o).startswith("--delta") for o in options) else ["--delta"]
        return ["-D", self.target, "-R", *way, *FAST, *self.mapping(), *options, *(server or self.primary).address()]

    def make_over(self, *options, server=None, **kw):
        done = self.run.basebackup(*self.command(*options, server=server), **kw)
        for picture, path, before in self._expected:
            assert picture(path) == before, f"{path} was changed\n{done}"
        return done

    def start_make_over(self, *options, server=None, **kw):
        return self.run.start_basebackup(*self.command(*options, server=server), **kw)

    # ---- what must be true afterwards

    def databases(self):
        return [name for (name,) in self.primary.rows("SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1")]

    def quiesce(self):
        """From here on no page of the primary changes by being read."""
        for db in self.databases():
            self.primary.sql("VACUUM", db=db)
        self.primary.sql("CHECKPOINT")

    def is_complete(self, wal=True):
        """As others see it, before it is started."""
        nothing_of_ours(self.target)
        verify_backup(self.pg, self.place, self.target, wal)
        assert_only_new_wal(self.target)

    def equals_a_fresh_copy(self, but=()):
        """What pg_basebackup makes of the same server; it must have been quiet since before the run."""
        self._copies += 1
        suffix = f".fresh{self._copies}"
        fresh = os.path.join(self.tmp, f"standby{suffix}")
        program, _ = installs.reader_of("pg_basebackup", self.pg.major)
        self.place.call([program, "-D", fresh, *FAST, "--no-sync", "-X", "none", *self.mapping(suffix),
                         *self.primary.address()])
        assert_same(self.target, fresh, but)
        for location, here in self.spaces.items():
            assert_same(here, here + suffix)
            assert here in self.links().values(), f"{here} (the server's {location}) is not in {self.links()}"
        for path in (fresh, *(here + suffix for here in self.spaces.values())):
            self.place.discard(path)

    def links(self):
        top = self.path("pg_tblspc")
        return {name: os.readlink(os.path.join(top, name)) for name in os.listdir(top)
                if os.path.islink(os.path.join(top, name))}

    def follows(self):
        """It starts, comes to hold what the primary holds, and every page and index is sound."""
        self.primary.sql("CREATE TABLE IF NOT EXISTS afterwards AS SELECT generate_series(1, 1000) AS i")
        if self._through:
            self._lead_to_the_primary()
        standby = start_standby(self.clusters, self.pg, self.target, self.primary)
        standby.wait_replayed(self.primary.lsn())
        for db in self.databases():
            assert content.fingerprint(standby, db) == content.fingerprint(self.primary, db), db
        content.check_indexes(standby)
        standby.stop()
        for name in ("pg_checksums", "pg_verify_checksums"):
            if os.path.exists(self.pg.program(name)):
                self.place.call([self.pg.program(name), *(["--check"] if name == "pg_checksums" else []), "-D", self.target])
        return standby

    def _lead_to_the_primary(self):
        name = "postgresql.auto.conf" if self.pg.major >= 12 else "recovery.conf"
        value = self.primary.conninfo().replace("'", "''")
        with open(self.path(name), "a", encoding="utf-8") as f:
            f.write(f"primary_conninfo = '{value}'\n")

    def is_right(self, but=(), wal=True):
        """All of it, on a server that is quiet since before the run."""
        self.is_complete(wal)
        self.equals_a_fresh_copy(but)
        self.follows()

    def does_not_start(self):
        """No server takes the directory for a cluster."""
        argv = [self.pg.program("postgres"), "-D", self.target, "-c", "listen_addresses=", "-c",
                f"unix_socket_directories={self.place.sockets}"]
        before = set(os.listdir(self.target))
        tried = subprocess.run(self.place.command(argv), env=self.place.environment(), cwd=self.place.base,
                               stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert tried.returncode != 0, tried.stderr
        assert "ready to accept" not in tried.stderr, tried.stderr
        assert set(os.listdir(self.target)) == before, "the server left something"
