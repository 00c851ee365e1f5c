"""Servers and what their databases hold: made once, kept with --keep."""

import json
import os
import shutil
import threading

from . import machine
from pgrtest.server import HBA

# While it is filled nobody else needs it: nothing is synced, new tables are not logged, and no WAL is left behind.
FILLING = {
    "fsync": "off", "full_page_writes": "off", "wal_level": "minimal", "max_wal_senders": "0", "max_wal_size": "4GB",
    "wal_recycle": "off",
    "shared_buffers": "256MB", "maintenance_work_mem": "256MB",
}
# As shipped, but for what a standby needs, TLS, and nothing that starts by itself.
MEASURED = {
    "wal_level": "replica", "max_wal_senders": "20", "max_wal_size": "256MB",
}
ALWAYS = {
    "autovacuum": "off", "checkpoint_timeout": "1h", "log_checkpoints": "off", "timezone": "UTC", "log_timezone": "UTC",
}

# A row is about 264 bytes on a page.  Text and numbers are random, the text in hexadecimal: general-purpose compressors
# halve it.
ROW_BYTES = 264
POOL = """
CREATE TABLE pool AS
SELECT i AS id, (random() * 1e6)::int AS owner, (random() * 1e9)::numeric(20, 6) AS amount,
    now() + i * interval '1 s' AS at,
    md5(i::text) || md5(i || 'a') || md5(i || 'b') || md5(i || 'c') || md5(i || 'd') || md5(i || 'e') AS note
FROM generate_series({first}, {last}) i
"""
# Copies of the pool follow each other at a distance that no compressor sees.  Created and filled in one transaction.
COPIES = """
DO $$ BEGIN
CREATE TABLE {table} (LIKE pool);
FOR copy IN 1..{copies} LOOP
    INSERT INTO {table} SELECT id + copy::bigint * {rows}, owner, (random() * 1e9)::numeric(20, 6), at, note
        FROM pool{where};
END LOOP;
END $$
"""
SMALL = """
DO $$ BEGIN
FOR i IN {first}..{last} LOOP
    EXECUTE format('CREATE TABLE small_%s AS SELECT g AS id, g * %s AS value FROM generate_series(1, 100) g', i, i);
    IF i % 1000 = 0 THEN COMMIT; END IF;
END LOOP;
END $$
"""


class Data:
    """What a server holds: `gigabytes` in tables of several sizes, or `tables` small ones.

    filling, measured    settings of the server while it is filled, and afterwards
    initdb               more options of initdb
    """

    filling, measured = FILLING, MEASURED

    def __init__(self, gigabytes=0.0, tables=0, checksums=True):
        self.gigabytes, self.tables, self.checksums = gigabytes, tables, checksums

    @property
    def initdb(self):
        return ["--data-checksums"] if self.checksums else []

    @property
    def name(self):
        size = f"{self.tables}-tables" if self.tables else f"{self.gigabytes:g}-gb"
        return size if self.checksums else f"{size}-no-checksums"

    def prepare(self, server):
        """Before its first start."""

    def fill(self, server):
        """Returns what is to be told of it beyond the size of the directory."""
        if self.tables:
            self._fill_small(server)
        else:
            self._fill_large(server)
        return {}

    def _fill_large(self, server):
        """Half of it in one table, a quarter in a second one with an index on top, the rest in 13 tables."""
        rows = int(self.gigabytes * 1e9 / ROW_BYTES / 16)
        server.sql(POOL.format(first=1, last=rows))
        in_parallel(
            lambda: server.sql(COPIES.format(table="big", copies=8, rows=rows, where="")),
            lambda: server.sql(COPIES.format(table="medium", copies=4, rows=rows, where=""),
                               "CREATE UNIQUE INDEX ON medium (id)",
                               *(COPIES.format(table=f"part_{k}", copies=1, rows=rows,
                                               where=f" WHERE id % 4 = {k % 4}") for k in range(12))),
        )

    def _fill_small(self, server):
        half = self.tables // 2
        in_parallel(lambda: server.sql(SMALL.format(first=1, last=half)),
                    lambda: server.sql(SMALL.format(first=half + 1, last=self.tables)))


def in_parallel(*jobs):
    """Runs them in threads; the first one's error is raised when all have ended."""
    errors = []

    def guarded(job):
        try:
            job()
        except BaseException as e:  # pylint: disable=broad-except
            errors.append(e)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


class Servers:
    """One server for each kind of data; only one runs at a time."""

    def __init__(self, clusters, install, directory, certificates, tell):
        self._clusters, self._install, self._certificates, self._tell = clusters, install, certificates, tell
        self._directory = directory
        self._known = {}  # Data.name -> Server
        self._facts = {}

    def running(self, data):
        """The server with this data, running, its data in the page cache."""
        server = self._known.get(data.name) or self._find(data)
        if not server.running():
            self.stop()
            tls = self._certificates.settings() if self._certificates else {}
            self._configure(server, data.measured, **tls)
            server.start()
        return server

    def facts(self, data):
        return self._facts[data.name]

    def stop(self):
        for server in self._known.values():
            server.stop()

    def _find(self, data):
        path = os.path.join(self._directory, f"{self._install.major}-{data.name}")
        if not os.path.exists(f"{path}.json"):
            self.stop()
            self._make(data, path)
        with open(f"{path}.json", encoding="utf-8") as f:
            self._facts[data.name] = json.load(f)
        self._known[data.name] = self._clusters.adopt(self._install, path)
        return self._known[data.name]

    def _make(self, data, path):
        """The facts are written when everything else is there, so a half-filled directory is made anew."""
        place = self._clusters.place
        self._tell(f"filling a server: {data.name}")
        shutil.rmtree(path, ignore_errors=True)
        place.call([self._install.program("initdb"), "-D", path, "-N", "-U", "postgres", "-A", "trust", "-E", "UTF8",
                    "--locale=C", *data.initdb])
        server = self._clusters.adopt(self._install, path)
        server.configure(include="'bench.conf'")
        server.set_hba(HBA)
        self._configure(server, data.filling)
        data.prepare(server)
        server.start()
        server.sql("CREATE ROLE repl LOGIN REPLICATION")
        more = data.fill(server)
        server.sql("CHECKPOINT")
        server.stop()
        wal = machine.tree_bytes(os.path.join(path, "pg_wal"))
        found = {"bytes": machine.tree_bytes(path) - wal, "files": machine.tree_files(path),
                 "compresses": round(machine.compresses(path), 2), **more}
        with open(f"{path}.json", "w", encoding="utf-8") as f:
            json.dump(found, f)

    def _configure(self, server, *parts, **more):
        settings = dict(ALWAYS)
        for part in (*parts, more):
            settings.update(part)
        self._clusters.place.write(os.path.join(server.data, "bench.conf"),
                                   "".join(f"{name} = {value}\n" for name, value in settings.items()))
