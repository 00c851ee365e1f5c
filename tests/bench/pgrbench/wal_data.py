"""What the servers of the WAL benchmark hold."""

from . import machine
from .data import FILLING, POOL
from pgrtest.wal import lsn_number, segment_name

LSN = "pg_current_wal_insert_lsn()"

# Rows into a table with an index, every sixteenth of them changed and some removed: heap, index and commit records, and
# a page as a whole where it is the first change since a checkpoint.  The table is emptied when it has grown.
BUSY = f"""
DO $$ DECLARE
    upto pg_lsn := '{{upto}}'; number bigint := 0;
BEGIN
WHILE {LSN} < upto LOOP
    INSERT INTO busy SELECT id + number * 20000, owner, amount, at, note FROM pool;
    UPDATE busy SET amount = amount + 1 WHERE id BETWEEN number * 20000 + 1 AND (number + 1) * 20000 AND id % 16 = 0;
    DELETE FROM busy WHERE id BETWEEN number * 20000 + 1 AND (number + 1) * 20000 AND id % 50 = 0;
    COMMIT;
    number := number + 1;
    IF number % 20 = 0 THEN TRUNCATE busy; COMMIT; END IF;
END LOOP;
END $$
"""


class Backlog:
    """A server that has kept `gigabytes` of WAL since its slot `kept` was made.

    Its facts: start and end, both ends of segments (a receiver that is told `last` to be the end position stops behind
    that byte, at `end`); bytes between them, and how well they compress.
    """

    filling = {**FILLING, "wal_level": "replica", "max_wal_senders": "20", "full_page_writes": "on",
               "max_wal_size": "512MB"}
    measured = {"wal_level": "replica", "max_wal_senders": "20", "max_wal_size": "1GB"}
    initdb = ("--data-checksums",)

    def __init__(self, gigabytes):
        self.gigabytes = gigabytes

    @property
    def name(self):
        return f"{self.gigabytes:g}-gb-wal"

    def prepare(self, server):
        """Before its first start."""

    def fill(self, server):
        server.sql(POOL.format(first=1, last=20000), "CREATE TABLE busy (LIKE pool)", "CREATE INDEX ON busy (id)",
                   "SELECT pg_switch_wal()", "CHECKPOINT",
                   "SELECT pg_create_physical_replication_slot('kept', true)")
        size = server.segment_bytes()
        kept = lsn_number(server.sql("SELECT restart_lsn FROM pg_replication_slots"))
        start = kept - kept % size
        end = start + max(2, round(self.gigabytes * 1e9 / size)) * size
        server.sql(BUSY.format(upto=lsn_text(end)))
        middle = server.wal_path(segment_name(1, (start + end) // 2, size))
        return {"start": lsn_text(start), "last": lsn_text(end - 1), "end": lsn_text(end), "bytes": end - start,
                "segment_bytes": size, "compresses": round(machine.file_compresses(middle), 2)}


class Accounts:
    """A server that clients commit to: as shipped, but for what keeps a checkpoint from falling into a run."""

    filling = {"wal_level": "replica", "max_wal_senders": "20"}
    measured = {"wal_level": "replica", "max_wal_senders": "20", "max_wal_size": "8GB", "min_wal_size": "2GB",
                "wal_keep_size": "512MB", "max_connections": "200", "shared_buffers": "256MB"}
    initdb = ("--data-checksums",)
    name = "commits"

    def prepare(self, server):
        """Before its first start."""

    @staticmethod
    def fill(server):
        server.sql("CREATE TABLE told (id bigserial, client int, at timestamptz DEFAULT now(), note text)")
        return {}


class Old:
    """A server that has written a million segments: so many stand in an archive of it."""

    filling = {"wal_level": "replica", "max_wal_senders": "20"}
    measured = {"wal_level": "replica", "max_wal_senders": "20", "log_replication_commands": "on",
                "log_line_prefix": "'%n '"}
    initdb = ("--data-checksums",)
    name = "old"
    # The first segment of a log file of 4 GiB; of 16 MB there are 2^20 before it.
    SEGMENT = "000000010000100000000000"

    def prepare(self, server):
        server.place.call([server.install.program("pg_resetwal"), "-l", self.SEGMENT, "-D", server.data])

    @staticmethod
    def fill(server):
        """It is old, not large."""
        return {}


def lsn_text(number):
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"
