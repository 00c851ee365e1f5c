"""Old copies of a server: each was a standby that was stopped when a part of the pages was still to change.

They are made once, lie beside the server's data, and are put back before each run.
"""

import json
import os
import shutil

from . import machine
from .delta_cases import PERCENTS
from pgrtest.checks import start_standby

PAGE = 8192

# One row on each chosen page of the largest table, which is about half of the database; the new versions go to its end.
# Twice the percentage of its pages, picked by a hash of their numbers.
UPDATE = """
UPDATE big SET amount = amount + 1 WHERE ctid = ANY (ARRAY(
    SELECT format('(%s,{line})', p)::tid FROM generate_series(0, {pages} - 1) p
    WHERE abs(hashint4(p::int)::bigint) % 100 BETWEEN {first} AND {last}))
"""


class OldCopies:
    """facts: {percent: {"pages": of the server, "differ": so many of them}}"""

    def __init__(self, bench, server):
        self._bench, self._server = bench, server
        self._mark = f"{server.data}-old.json"
        if not os.path.exists(self._mark):
            self._make()
        with open(self._mark, encoding="utf-8") as f:
            self.facts = json.load(f)

    def path(self, percent):
        return f"{self._server.data}-old-{percent}"

    def put_back(self, percent, target):
        """Outside of any time.  Nothing of it is in the page cache then: it is old."""
        self._bench.place.call(["cp", "-a", "--reflink=auto", f"{self.path(percent)}/.", target])
        os.sync()
        machine.cool(target)
        machine.cool(self.path(percent))

    # ---- once

    def _make(self):
        pages = int(self._server.sql("SELECT pg_relation_size('big') / current_setting('block_size')::int"))
        most = sorted(PERCENTS, reverse=True)
        for n, percent in enumerate(most):
            self._bench.tell(f"making the old copy in which {percent} % of the pages will differ")
            self._copy(percent)
            if percent:
                query = UPDATE.format(line=n + 1, pages=pages, first=2 * most[n + 1], last=2 * percent - 1)
                self._server.sql(query, "CHECKPOINT")
        found = {percent: self._compare(percent) for percent in PERCENTS}
        with open(self._mark, "w", encoding="utf-8") as f:
            json.dump(found, f)

    def _copy(self, percent):
        """A standby that has run and was stopped."""
        path, place, server = self.path(percent), self._bench.place, self._server
        shutil.rmtree(path, ignore_errors=True)
        place.call([self._bench.stock, "-d", f"host={place.sockets} port={server.port} user=postgres", "-w", "-R",
                    "--checkpoint=fast", "-D", path])
        standby = start_standby(self._bench.clusters, server.install, path, server)
        standby.wait_replayed(server.lsn())
        standby.stop()
        self._take_times(path)

    def _take_times(self, path):
        """As if rsync had made it: what is the same has the server's time, by which rsync knows it."""
        for name, size in _sizes(path).items():
            original = os.path.join(self._server.data, name)
            try:
                found = os.stat(original)
            except FileNotFoundError:
                continue
            if found.st_size == size:
                os.utime(os.path.join(path, name), ns=(found.st_atime_ns, found.st_mtime_ns))

    def _compare(self, percent):
        """Of relation files, page by page."""
        pages = differ = 0
        for name, size in _sizes(self._server.data).items():
            if not name.startswith(("base/", "global/")) or not os.path.basename(name)[0].isdigit():
                continue
            pages += -(-size // PAGE)
            differ += _different_pages(os.path.join(self._server.data, name), os.path.join(self.path(percent), name))
        return {"pages": pages, "differ": differ}


def _sizes(top):
    found = {}
    for directory, _, names in os.walk(top):
        for name in names:
            full = os.path.join(directory, name)
            if os.path.isfile(full) and not os.path.islink(full):
                found[os.path.relpath(full, top)] = os.path.getsize(full)
    return found


def _different_pages(one, other):
    """Those of `one` that `other` does not have at the same place."""
    if not os.path.exists(other):
        return -(-os.path.getsize(one) // PAGE)
    count = 0
    with open(one, "rb") as f, open(other, "rb") as g:
        while a := f.read(1 << 20):
            b = g.read(1 << 20)
            if a != b:
                count += sum(a[at:at + PAGE] != b[at:at + PAGE] for at in range(0, len(a), PAGE))
    return count
