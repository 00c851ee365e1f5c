"""A PostgreSQL cluster: initdb, start, stop, kill, promote, SQL."""

import contextlib
import os
import signal
import socket
import subprocess

from . import installs
from .place import PATIENCE, wait_until
from .process import children_of

# No fsync: the servers' own durability is not under test, and nobody cuts the power.
SETTINGS = {
    "fsync": "off",
    "wal_level": "replica",
    "hot_standby": "on",
    "max_connections": "40",
    "max_wal_senders": "10",
    "max_replication_slots": "10",
    "shared_buffers": "16MB",
    "dynamic_shared_memory_type": "mmap",  # in the data directory, where also a killed server's goes away
    "checkpoint_timeout": "1h",
    "max_wal_size": "2GB",
    "log_replication_commands": "on",
    "log_min_error_statement": "panic",
    "log_line_prefix": "'%m [%p] %q%a '",
    "timezone": "UTC",
    "log_timezone": "UTC",
}

HBA = """\
local all all trust
local replication all trust
host all all 127.0.0.1/32 trust
host replication all 127.0.0.1/32 trust
"""


class SqlError(AssertionError):
    """psql failed."""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A cluster in `data`, not yet running.  Made by Clusters, which also stops it."""

    def __init__(self, place, install, data, wrap=()):
        self.place = place
        self.install = install
        self.major = install.major
        self.data = data
        self.host = "127.0.0.1"
        self.port = free_port()
        self.log = data.rstrip("/") + ".log"
        self._wrap = list(wrap)  # a command that starts the server in a mount namespace, say
        self._postmaster = None

    # ---- before the start

    def configure(self, **settings):
        """Appends to postgresql.conf, the last value counts."""
        with open(os.path.join(self.data, "postgresql.conf"), "a", encoding="utf-8") as f:
            for name, value in settings.items():
                f.write(f"{name} = {value}\n")

    def set_hba(self, lines):
        with open(os.path.join(self.data, "pg_hba.conf"), "w", encoding="utf-8") as f:
            f.write(lines)

    def keep_wal(self):
        """The server removes no WAL, so that it can be compared."""
        if self.major >= 13:
            self.configure(wal_keep_size="100GB")
        else:
            self.configure(wal_keep_segments="100000")

    # ---- life

    def start(self):
        """Starts it and waits until it takes connections."""
        self.launch()
        wait_until(lambda: self._state() == "ready" or not self.running(), f"{self} is ready")
        assert self.running(), f"{self} did not start\n{self.log_tail()}"
        return self

    def launch(self):
        """Starts it without waiting."""
        assert not self.running()
        settings = {
            "listen_addresses": self.host,
            "port": self.port,
            "unix_socket_directories": self.place.sockets,
        }
        argv = [self.install.program("postgres"), "-D", self.data]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        # Standby and primary share one configuration file, so what differs between them is on the command line.
        with open(self.log, "ab") as log:
            self._postmaster = subprocess.Popen(
                self._wrap + self.place.command(argv, death="QUIT"), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self.place.environment(), cwd=self.place.base, start_new_session=True,
            )

    def running(self):
        return self._postmaster is not None and self._postmaster.poll() is None

    def _state(self):
        """The last line of postmaster.pid: starting, ready, standby, stopping."""
        try:
            with open(os.path.join(self.data, "postmaster.pid"), encoding="utf-8") as f:
                lines = f.read().split("\n")
        except FileNotFoundError:
            return None
        # A file that an earlier, killed postmaster left does not count.
        if len(lines) < 8 or lines[0] != str(self._postmaster.pid):
            return None
        return lines[7].strip()

    def stop(self, mode="fast"):
        if not self.running():
            return
        number = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode]
        self._postmaster.send_signal(number)
        try:
            self._postmaster.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self} did not stop ({mode})\n{self.log_tail()}") from None

    def kill(self):
        """SIGKILL for the postmaster and all its children, as the kernel does when memory runs out."""
        segment = self._shared_memory()
        victims = [self._postmaster.pid]
        for pid in victims:
            victims += children_of(pid)
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._postmaster.wait()
        if segment:
            subprocess.run(["ipcrm", "-m", segment], check=False, capture_output=True)

    @contextlib.contextmanager
    def orphaned(self):
        """The postmaster is killed, its children are held up; at the end they are gone as well."""
        segment, orphans = self._shared_memory(), []
        for pid in children_of(self._postmaster.pid):
            with contextlib.suppress(ProcessLookupError):  # the backend of a client that has gone
                os.kill(pid, signal.SIGSTOP)
                orphans.append(pid)
        self._postmaster.kill()
        self._postmaster.wait()
        try:
            yield
        finally:
            for pid in orphans:
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not any(os.path.exists(f"/proc/{pid}/cwd") for pid in orphans), "they have ended")
            if segment:
                subprocess.run(["ipcrm", "-m", segment], check=False, capture_output=True)

    def _shared_memory(self):
        """The System V segment by which a server knows another one on its directory; a killed server leaves it."""
        try:
            with open(os.path.join(self.data, "postmaster.pid"), encoding="utf-8") as f:
                return f.read().split("\n")[6].split()[1]
        except (FileNotFoundError, IndexError):
            return None

    def restart(self, mode="fast"):
        self.stop(mode)
        return self.start()

    def reload(self):
        self._postmaster.send_signal(signal.SIGHUP)

    def promote(self):
        self.place.call([self.install.program("pg_ctl"), "promote", "-D", self.data])
        wait_until(lambda: self.sql("SELECT pg_is_in_recovery()") == "f", f"{self} is promoted")

    def new_timeline(self):
        """A running primary becomes a primary on the next timeline, as after a point-in-time recovery."""
        self.stop()
        if self.major >= 12:
            self.configure(restore_command="'false'", recovery_target_timeline="'latest'")
            self.place.write(os.path.join(self.data, "recovery.signal"), "")
        else:
            self.place.write(os.path.join(self.data, "recovery.conf"),
                             "restore_command = 'false'\nrecovery_target_timeline = 'latest'\n")
        self.start()
        wait_until(lambda: self.sql("SELECT pg_is_in_recovery()") == "f", f"{self} has left recovery")

    # ---- SQL

    def sql(self, *queries, db="postgres", user="postgres"):
        """Runs the queries, one after the other; the last one's rows, columns separated by |."""
        argv = [installs.client("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1"]
        for query in queries:
            argv += ["-c", query]
        # The database's name goes through the environment: psql would take an odd one for a connection string.
        done = subprocess.run(
            argv, env=self.place.environment(PGHOST=self.place.sockets, PGPORT=self.port, PGUSER=user, PGDATABASE=db),
            cwd=self.place.base, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )
        if done.returncode != 0:
            raise SqlError(f"{queries}\n{done.stderr}\n{self.log_tail()}")
        return done.stdout.rstrip("\n")

    def try_sql(self, *queries, **kw):
        """As sql(), but None when it fails: for waiting until a server is back."""
        try:
            return self.sql(*queries, **kw)
        except SqlError:
            return None

    def rows(self, query, **kw):
        out = self.sql(query, **kw)
        return [line.split("|") for line in out.split("\n")] if out else []

    def lsn(self):
        """The end of what is written to WAL (primary) or replayed (standby)."""
        return self.sql("SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() "
                        "ELSE pg_current_wal_flush_lsn() END")

    def switch_wal(self):
        """Ends the current segment; a comment makes sure that there is something to end."""
        self.sql("COMMENT ON DATABASE postgres IS 'switched'", "SELECT pg_switch_wal()")

    def wait_replayed(self, lsn):
        wait_until(lambda: self.sql(f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'") == "t", f"{self} has replayed {lsn}")

    def slots(self):
        return [r[0] for r in self.rows("SELECT slot_name FROM pg_replication_slots ORDER BY 1")]

    def senders(self):
        """What the WAL senders do: a list of (application_name, state, sync_state)."""
        return self.rows("SELECT application_name, state, sync_state FROM pg_stat_replication")

    def sender_pid(self, state):
        """The process of the one WAL sender in this state; waits for it."""
        query = f"SELECT pid FROM pg_stat_replication WHERE state = '{state}'"
        return int(wait_until(lambda: self.sql(query), f"{self} has a WAL sender in state {state}").split("\n")[0])

    def wal_path(self, name=""):
        return os.path.join(self.data, "pg_wal", name)

    def segment_bytes(self):
        return int(self.sql("SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'")) * (
            1 if self.major >= 11 else 8192)

    # ---- connections and messages

    def address(self, user="postgres"):
        """Connection options of the programs under test."""
        return ["-h", self.host, "-p", str(self.port), "-U", user]

    def conninfo(self, **more):
        """A connection string."""
        values = {"host": self.host, "port": self.port, "user": "postgres", **more}
        return " ".join(f"{k}='{_quoted(str(v))}'" for k, v in values.items())

    def log_text(self):
        try:
            with open(self.log, encoding="utf-8", errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def log_tail(self, lines=40):
        return f"--- {self.log}\n" + "\n".join(self.log_text().split("\n")[-lines:])

    def __str__(self):
        return f"the {self.install.major} server in {self.data}"


def _quoted(value):
    return value.replace("\\", "\\\\").replace("'", "\\'")


class Clusters:
    """Makes servers and stops them all."""

    def __init__(self, place):
        self.place = place
        self._servers = []
        self.templates = {}  # (bindir, options of initdb) -> directory

    def create(self, install, initdb=(), **settings):
        """A new primary with these settings, not started."""
        server = self.copy_of(install, self._template(install, tuple(initdb)))
        server.configure(**{**SETTINGS, **settings})
        server.set_hba(HBA)
        return server

    def copy_of(self, install, template):
        """A server on a copy of this directory, not started."""
        data = self.place.directory(memory=True)
        os.rmdir(data)
        self.place.copy_tree(template, data)
        return self.adopt(install, data)

    def adopt(self, install, data, wrap=()):
        """A server on an existing directory, not started."""
        server = Server(self.place, install, data, wrap)
        self._servers.append(server)
        return server

    def _template(self, install, initdb):
        """initdb takes half a second, a copy of what it made is quicker.  (So all share a system identifier.)"""
        key = (install.bindir, initdb)
        if key not in self.templates:
            self.templates[key] = self.initdb(install, initdb)
        return self.templates[key]

    def initdb(self, install, options=()):
        data = self.place.directory(memory=True)
        self.place.call([install.program("initdb"), "-D", data, "-N", "-U", "postgres", "-A", "trust", "-E", "UTF8",
                         "--locale=C", *options])
        return data

    def stop_all(self):
        """Immediately, for what they hold is thrown away."""
        servers, self._servers = self._servers, []
        for server in servers:
            if server.running():
                server.stop("immediate")
            self.place.discard(server.data)

    def logs(self):
        return [server.log_tail() for server in self._servers]


def wal_segsize(install, megabytes):
    """The option of initdb for this size of WAL segments; 10 has only the size that it was compiled with, 16."""
    return [f"--wal-segsize={megabytes}"] if install.major >= 11 else []
