"""What the test databases hold, a writer that keeps changing it, and a fingerprint to compare by."""

import hashlib
import subprocess

from . import installs
from .place import wait_until

TABLES = """
CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0, owner text);
INSERT INTO accounts SELECT i, i * 10, md5(i::text) FROM generate_series(1, 20000) i;
CREATE TABLE ledger (id bigserial PRIMARY KEY, account int, note text, at timestamptz DEFAULT now());
CREATE INDEX ON ledger (account);
CREATE TABLE documents (id int PRIMARY KEY, body text);
ALTER TABLE documents ALTER body SET STORAGE EXTERNAL;
INSERT INTO documents SELECT i, string_agg(md5((i * j)::text), '') FROM generate_series(1, 60) i,
    generate_series(1, 1000) j GROUP BY i;
CREATE UNLOGGED TABLE scratch (id int PRIMARY KEY, note text);
INSERT INTO scratch SELECT i, md5(i::text) FROM generate_series(1, 5000) i;
CREATE TABLE gone AS SELECT i FROM generate_series(1, 5000) i;
DROP TABLE gone;
CHECKPOINT;
"""

WRITES = """\
\\set account random(1, 20000)
BEGIN;
UPDATE accounts SET balance = balance + 1 WHERE id = :account;
INSERT INTO ledger (account, note) VALUES (:account, repeat(md5(random()::text), 8));
END;
"""


def populate(server, db="postgres"):
    server.sql(*[q for q in TABLES.split(";\n") if q.strip()], db=db)
    if server.major >= 11:
        server.sql("CREATE EXTENSION IF NOT EXISTS amcheck", db=db)


def fingerprint(server, db="postgres"):
    """{table: (rows, hash of all of them)} for the permanent tables of a database."""
    tables = server.rows(
        "SELECT c.oid::regclass FROM pg_class c WHERE relkind = 'r' AND relpersistence = 'p' "
        "AND relnamespace = 'public'::regnamespace ORDER BY 1", db=db)
    queries = [f"SELECT '{name}', count(*), sum(hashtext(t::text)::bigint) FROM {name} t" for (name,) in tables]
    return {row[0]: row[1:] for row in server.rows(" UNION ALL ".join(queries), db=db)} if queries else {}


def check_indexes(server, db="postgres"):
    """amcheck of every btree index; fails with the server's words."""
    if server.major < 11:
        return
    server.sql("SELECT bt_index_check(c.oid, true) FROM pg_class c JOIN pg_am a ON a.oid = relam "
               "WHERE amname = 'btree' AND relkind = 'i' AND relpersistence = 'p'", db=db)


def hash_of(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


class Writer:
    """Two clients that write without a pause, from entry to exit of a `with` block."""

    def __init__(self, server, rate=None):
        self.server = server
        place = server.place
        script = place.write(f"{place.directory()}/writes.sql", WRITES)
        self._argv = place.command([installs.client("pgbench"), "-n", "-c", "2", "-T", "3600", "-f", script,
                                    *(["-R", str(rate)] if rate else [])])
        self._env = place.environment(PGHOST=place.sockets, PGPORT=server.port, PGUSER="postgres",
                                      PGDATABASE="postgres")
        self._pgbench = None

    def __enter__(self):
        self._pgbench = subprocess.Popen(self._argv, env=self._env, cwd=self.server.place.base,
                                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.wait_for(50)
        return self

    def wait_for(self, rows):
        """Waits until so many more rows are committed."""
        goal = self._rows() + rows
        wait_until(lambda: self._rows() >= goal or not self.running(), f"{rows} rows more are written")

    def _rows(self):
        return int(self.server.sql("SELECT last_value FROM ledger_id_seq"))

    def running(self):
        return self._pgbench.poll() is None

    def __exit__(self, *exc):
        self._pgbench.kill()
        self._pgbench.wait()
