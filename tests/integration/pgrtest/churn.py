"""Changes of everything that a server holds, again and again, while something else is under test."""

import threading

from .server import SqlError

# Each thread runs one of these lists again and again; %d is the number of the round.
TABLES = [
    "CREATE TABLE c%d AS SELECT g, md5(g::text) t FROM generate_series(1, 3000) g",
    "CREATE INDEX ON c%d (t)",
    "DELETE FROM c%d WHERE g %% 3 = 0",
    "VACUUM c%d",
    "TRUNCATE c%d",
    "INSERT INTO c%d SELECT g, md5(g::text) FROM generate_series(1, 500) g",
    "DROP TABLE IF EXISTS c%d_old",
    "ALTER TABLE c%d RENAME TO c%d_old",
]
REWRITES = [
    "VACUUM FULL accounts",
    "CREATE TEMP TABLE passing AS SELECT generate_series(1, 20000) i, %d AS round",
    "CREATE UNLOGGED TABLE u%d AS SELECT generate_series(1, 5000) i",
    "REINDEX TABLE ledger",
    "DROP TABLE u%d",
    "CLUSTER documents USING documents_pkey",
]
DATABASES = [
    "CREATE DATABASE logged%d {wal_log}",
    "CREATE DATABASE copied%d {file_copy}",
    "DROP DATABASE logged%d",
    "DROP DATABASE copied%d",
]
TABLESPACES = [
    "CREATE TABLESPACE space%d LOCATION ''",  # in place: the standby is on the same machine
    "CREATE TABLE in_space%d TABLESPACE space%d AS SELECT generate_series(1, 2000) i",
    "DROP TABLE in_space%d",
    "DROP TABLESPACE space%d",
]


class Churn:
    """Changes everything, from entry to exit of a `with` block."""

    def __init__(self, server):
        self._server, self._over = server, threading.Event()
        self.rounds, self.errors = {}, []
        strategies = {name: f"STRATEGY {name}" if server.major >= 15 else "" for name in ("wal_log", "file_copy")}
        lists = {"tables": TABLES, "rewrites": REWRITES, "databases": [q.format(**strategies) for q in DATABASES]}
        if server.major >= 15:
            lists["tablespaces"] = TABLESPACES
        self._threads = [threading.Thread(target=self._go, args=item) for item in lists.items()]

    def _go(self, name, queries):
        number = 0
        while not self._over.is_set() and not self.errors:
            number += 1
            try:
                # one session: temporary tables live until its end
                self._server.sql(*[query.replace("%d", str(number)).replace("%%", "%") for query in queries])
            except SqlError as e:
                self.errors.append(e)
            self.rounds[name] = number

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc):
        self._over.set()
        for thread in self._threads:
            thread.join()
        assert not self.errors, str(self.errors[0])
