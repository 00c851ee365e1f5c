"""Fixtures: one primary that tests of one major version share, and servers of their own for the others.

PGR_MAJORS   "debian" (default), or major versions fetched by tests/support/fetch-servers.sh: "10 11 18"
PGR_BIN_DIR  where the programs under test are, relative to the tree (default build/plain)
PGR_KEEP     set: the session's directory stays
PGR_PATIENCE seconds after which a wait is given up (default 90)
"""

import os
import subprocess

import pytest

from pgrtest import content, installs, tls
from pgrtest.place import Place, wait_until
from pgrtest.programs import SANITIZER_REPORT, Programs
from pgrtest.server import HBA, Clusters

MAJORS = os.environ.get("PGR_MAJORS", "debian").replace(",", " ").split()


def pytest_generate_tests(metafunc):
    if "pg" in metafunc.fixturenames:
        names = [m if m != "debian" else f"debian{installs.find(m).major}" for m in MAJORS]
        metafunc.parametrize("pg", MAJORS, ids=names, indirect=True, scope="session")


def pytest_report_header():
    return f"PostgreSQL: {', '.join(MAJORS)}"


@pytest.fixture(scope="session")
def pg(request):
    """The server programs that a test runs against."""
    return installs.find(request.param)


@pytest.fixture(scope="session")
def place():
    here = Place()
    yield here
    for path in here.remove():
        print(f"kept: {path}")


@pytest.fixture(scope="session")
def certificates(place):
    return tls.Certificates(place)


@pytest.fixture
def tmp(place):
    """A directory of the test's own, which belongs to the user who runs the programs."""
    path = place.directory()
    yield path
    place.discard(path)


@pytest.fixture(scope="session")
def _session_clusters(place):
    made = Clusters(place)
    yield made
    made.stop_all()


@pytest.fixture(scope="session")
def shared_primary(pg, place, _session_clusters, certificates):
    """The server behind `primary`: TLS, roles with and without password, tables."""
    server = _session_clusters.create(pg, **certificates.settings(), password_encryption="'scram-sha-256'")
    server.set_hba("host all,replication keeper 127.0.0.1/32 scram-sha-256\n" + HBA)
    server.keep_wal()
    server.start()
    server.sql("CREATE ROLE keeper LOGIN REPLICATION PASSWORD 'it''s a \\secret'",
               "CREATE ROLE nobody_special LOGIN")
    content.populate(server)
    yield server
    server.stop("immediate")
    place.discard(server.data)  # it kept all its WAL, and the next major's is about to do so, too


@pytest.fixture
def primary(shared_primary):
    """A running primary with content.  A test leaves no slot and no connection on it."""
    yield shared_primary
    if not shared_primary.running():
        shared_primary.start()
        pytest.fail(f"{shared_primary} was stopped")
    wait_until(lambda: not shared_primary.senders(), "all WAL senders of the shared primary are gone")
    slots = shared_primary.slots()
    for slot in slots:
        shared_primary.sql(f"SELECT pg_drop_replication_slot('{slot}')")
    assert not slots, f"left behind on the server: {slots}"


@pytest.fixture
def clusters(place, tmp, _session_clusters, request):
    """Servers of the test's own; they are stopped when it ends, before `tmp` is removed."""
    made = Clusters(place)
    made.templates = _session_clusters.templates
    yield made
    _tell(request, made.logs())
    made.stop_all()


@pytest.fixture
def small_disk(place, tmp):
    """Makes a file system of so many megabytes below `tmp`."""
    mounted = []

    def mount(megabytes):
        path = os.path.join(tmp, "disk")
        os.mkdir(path)
        options = f"size={megabytes}m,uid={place.user.pw_uid},gid={place.user.pw_gid},mode=700"
        command = ["mount", "-t", "tmpfs", "-o", options, "pgr-test", path]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode != 0:
            pytest.skip("a small file system can be mounted by root only")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", path], check=True)


@pytest.fixture(scope="session")
def _programs(place):
    return Programs(place)


@pytest.fixture
def run(_programs, small_disk, request):
    """Runs the programs under test; ends those that still run when the test ends."""
    yield _programs
    processes = _programs.end_all()
    _tell(request, map(str, processes))
    for process in processes:
        assert not SANITIZER_REPORT.search(process.err), str(process)


def _tell(request, texts):
    """What servers and programs said goes below the report of a failed test."""
    report = getattr(request.node, "report_call", None)
    if report is not None and report.failed:
        for text in texts:
            print(text)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if call.when == "call":
        item.report_call = outcome.get_result()
