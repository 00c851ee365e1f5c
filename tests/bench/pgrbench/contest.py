"""Runs a case: every contestant once a round, in the opposite order in every other round."""

import os

from . import machine, meter, turns
from .cases import STOCK
from pgrtest.relay import Relay, socket_of


class Contest:
    """What all cases share.

    install    the server's and the stock client's programs
    ours       the path of pgr-basebackup
    servers    data.Servers
    tell       called with a line for whoever waits
    """

    def __init__(self, place, install, ours, servers, tell):
        self.place, self.install, self.servers, self._tell = place, install, servers, tell
        self._programs = {"stock": install.program("pg_basebackup"), "ours": ours}

    def run(self, case, rounds):
        """{contestant: {"runs": [measurement...]} or {"runs": ..., "error": text}}, and facts of the data."""
        server = self.servers.running(case.data)
        relays = {name: Relay(self.place, socket_of(server), **options) for name, options in case.relays.items()}
        started = turns.now()
        copies = []

        def turn(contestant, number, results):
            if not case.keep:
                self._discard(copies)
            copies.append(self.place.directory())
            return self._measure(_Turn(case, contestant, server, relays, number), results, copies[-1])

        try:
            results = turns.take_turns(case, rounds, turn, self._tell)
        finally:
            self._discard(copies)
            for relay in relays.values():
                relay.stop()
        return {"started": started, "data": self.servers.facts(case.data), "contestants": results}

    def _discard(self, copies):
        while copies:
            self.place.discard(copies.pop())

    def _measure(self, turn, results, target):
        server_pid = meter.postmaster(turn.server)
        turn.server.sql("CHECKPOINT")
        machine.warm(turn.server.data)
        machine.settle(target)
        if turn.contestant.program == "raw":
            size = _copied(results) or self.servers.facts(turn.case.data)["bytes"]
            measured = meter.direct_write(os.path.join(target, "raw"), size, server_pid)
        else:
            measured = meter.run(self.place, self._command(turn, target), server_pid,
                                 [r.pid for r in turn.relays.values()], turn.over_network)
        measured["copied"] = machine.tree_bytes(target)
        if turn.number == 1 and turn.case.plain and turn.contestant.program == "ours":
            self.place.call([self.install.program("pg_verifybackup"), target])
        return measured

    def _command(self, turn, target):
        c = turn.contestant
        if c.program == "cp":
            # The server's own files, while it runs: no standby starts from this, but scripts begin so.
            return ["sh", "-c", 'cp -r "$1"/. "$2" && sync -f "$2"', "sh", turn.server.data, target]
        return [self._programs[c.program], "-d", turn.conninfo(), "-w", "--checkpoint=fast", "-D", target, *c.options]


class _Turn:
    """One contestant in one round."""

    def __init__(self, case, contestant, server, relays, number):
        self.case, self.contestant, self.server, self.relays, self.number = case, contestant, server, relays, number

    @property
    def over_network(self):
        return self.contestant.program in ("stock", "ours") and self.contestant.via != "unix"

    def conninfo(self):
        via, server = self.contestant.via, self.server
        values = {"host": server.host, "port": server.port, "user": self.contestant.user, "sslmode": "disable",
                  "gssencmode": "disable"}
        if via == "unix":
            values["host"] = server.place.sockets
        elif via == "tls":
            values["sslmode"] = "require"
        elif via in self.relays:
            values["port"] = self.relays[via].port
        return " ".join(f"{name}={value}" for name, value in values.items())


def _copied(results):
    """What pg_basebackup's copy came to."""
    runs = results.get(STOCK, {}).get("runs")
    return runs[-1]["copied"] if runs else None
