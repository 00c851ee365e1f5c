"""The relay itself: what it is told to break, it breaks, and nothing else."""

import os
import socket
import threading

import pytest

from pgrtest.place import PATIENCE
from pgrtest.relay import Relay

DATA = os.urandom(3 << 20)


class Talker:
    """A server that sends `data` to whoever connects, and reads to the end, into `heard`: then, or first."""

    def __init__(self, data):
        self.data = data
        self.polite = False
        self.heard = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._talk, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _talk(self, connection):
        with connection:
            try:
                if self.polite:
                    self.heard.append(read_all(connection))
                connection.sendall(self.data)
                connection.shutdown(socket.SHUT_WR)
                if not self.polite:
                    self.heard.append(read_all(connection))
            except OSError:
                pass

    def wait_idle(self):
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a connection was left open"

    def close(self):
        if self._listener.fileno() >= 0:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        self._acceptor.join(PATIENCE)
        self.wait_idle()


@pytest.fixture
def talker():
    made = Talker(DATA)
    yield made
    made.close()


def read_all(connection):
    connection.settimeout(PATIENCE)
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def visit(relay, send=b""):
    """What a client receives that sends this and then waits for the end."""
    with socket.create_connection((relay.host, relay.port)) as connection:
        connection.sendall(send)
        connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def differences(a, b):
    assert len(a) == len(b)
    return [i for i, (x, y) in enumerate(zip(a, b)) if x != y]


@pytest.mark.parametrize("options", [
    {}, {"delay": 20}, {"rate": 30_000_000}, {"link_rate": 40_000_000, "delay": 5},
    {"rate": 60_000_000, "link_rate": 50_000_000},
], ids=str)
def test_nothing_changes_on_the_way(place, talker, options):
    with Relay(place, talker.target, **options) as relay:
        request = DATA[:700_001]
        assert visit(relay, request) == DATA
        assert visit(relay) == DATA
        passed = relay.stop()
    assert passed == {"connections": 2, "from_server": 2 * len(DATA), "to_server": len(request)}
    talker.close()
    assert sorted(talker.heard) == [b"", request]


def test_the_end_of_one_direction_leaves_the_other(place, talker):
    talker.polite = True
    with Relay(place, talker.target) as relay:
        assert visit(relay, b"question") == DATA
    assert talker.heard == [b"question"]


@pytest.mark.parametrize("position", [1, 100_000, len(DATA)])
def test_one_byte_is_changed_once(place, talker, position):
    with Relay(place, talker.target, flip_byte=position) as relay:
        assert differences(visit(relay), DATA) == [position - 1]
        assert visit(relay) == DATA


def test_one_byte_on_each_of_two_connections(place, talker):
    with Relay(place, talker.target, flip_byte=5, times=2) as relay:
        assert [differences(visit(relay), DATA) for _ in range(3)] == [[4], [4], []]


@pytest.mark.parametrize("position", [1, 1_000_000])
@pytest.mark.parametrize("delay", [0, 5])
def test_a_connection_is_cut(place, talker, position, delay):
    with Relay(place, talker.target, cut_after=position, delay=delay) as relay:
        with socket.create_connection((relay.host, relay.port)) as connection:
            assert read_all(connection) == DATA[:position]
            talker.wait_idle()  # it was closed on the other side too, though the client did not end it
        assert visit(relay) == DATA
        assert relay.stop()["from_server"] == position + len(DATA)


@pytest.mark.parametrize("text, sent, found", [
    ("needle", b"a neneedle here", True), ("aab", b"aaab", True), ("needle", b"need" * 50, False), ("x", b"x", True),
])
def test_only_after_a_text(place, talker, text, sent, found):
    """Positions are counted from where the client has said it: the server then answers."""
    talker.polite = True
    with Relay(place, talker.target, flip_byte=1000, cut_after=70_000, when=text) as relay:
        heard = visit(relay, sent)
        if found:
            assert len(heard) == 70_000 and differences(heard, DATA[:70_000]) == [999]
        else:
            assert heard == DATA


def test_a_text_concerns_its_connection_only(place, talker):
    with Relay(place, talker.target, cut_after=1000, times=5, when="cut me") as relay:
        assert visit(relay, b"do not") == DATA
        assert len(visit(relay, b"so cut me please")) < len(DATA)
        assert visit(relay) == DATA


def test_without_a_server_the_client_is_turned_away(place):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        target = f"127.0.0.1:{nobody.getsockname()[1]}"
    with Relay(place, target) as relay:
        assert visit(relay) == b""
        assert relay.stop()["connections"] == 0


def test_it_ends_while_connections_are_open(place, talker):
    with Relay(place, talker.target, rate=1000) as relay:
        with socket.create_connection((relay.host, relay.port)) as connection:
            first = connection.recv(1)
            assert relay.stop()["connections"] == 1
            assert DATA.startswith(first + read_all(connection))
