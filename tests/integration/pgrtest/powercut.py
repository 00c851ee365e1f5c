"""What a power cut could have left of a directory: made from the journal of tests/support/powercut.c.

    journal = Journal(path)            records, in the order in which they were appended
    disk = Disk(snapshot(directory))   the directory as it was, all of it durable, when the program started
    disk.play(journal, upto=n)         ... as it was when n records had been appended
    disk.cut(rng, names, data)         {path: content}: one of the many directories that a cut there could leave

A path's content is bytes, None for a directory, or a Link.

What is durable, as strictly as POSIX and the disks of today allow:

- Data, and the length of the file, are durable when an fsync or fdatasync of the file that began after the write had ended
  has succeeded.  Before, each sector of 512 bytes holds any of the versions it had since.
- A name (made, renamed, removed) is durable when an fsync of its directory that began afterwards has succeeded; that of the
  file does not help.  Before, the changes of a directory have happened up to some moment (`prefix`), or any of them has
  (`any`), whatever became of those of other directories; or (`journal`, as with ext4 and XFS, which promise less) the
  changes of all directories have happened up to one moment, and every successful sync of anything has brought it forward
  to where it began.  A rename is one change; into another directory it is two, but for `journal`.
- What a failed fsync was to bring to the disk is lost, whatever a second fsync says.
- syncfs does all of this for everything.
- Operations that had begun when the program was killed have happened, or not.

Left out: modes, owners and times; blocks that were allocated and lost (a full disk); a disk that lies about its cache; a
sector that is torn itself; and files that a cut leaves with what another file held before.
"""

import os
import re
import struct

from . import installs

SECTOR = 512

END, CREATE, WRITE, TRUNCATE, ALLOCATE, RENAME, UNLINK, MKDIR, LINK, SYNC, SYNC_ALL, SEND, STRANGE, SYMLINK = range(1, 15)
NAME_CHANGES = (CREATE, RENAME, UNLINK, MKDIR, LINK, SYMLINK)
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 0x01, 0x02, 0x10

NAMES = ("prefix", "any", "journal")
DATA = ("none", "all", "prefix", "writes", "sectors")

_HEAD = struct.Struct("=IHHQqQQqqHHI")


def library():
    path = os.path.join(installs.TREE, os.environ.get("PGR_BIN_DIR") or os.path.join("build", "plain"), "powercut.so")
    if not os.path.exists(path):
        raise installs.Missing(f"{path} is not built: make powercut")
    return path


def preload(place, directory=None, log=None, **more):
    """A command prefix (`env NAME=VALUE ...`) by which a program runs with the library.

    `more` are the library's other variables in small letters: sync_ms=5, fail="sync:3:EIO", device=path.
    """
    values = {f"POWERCUT_{name.upper()}": value for name, value in {"dir": directory, "log": log, **more}.items()}
    given = [f"{name}={value}" for name, value in values.items() if value is not None]
    # A sanitizer wants to be the first library; this one needs nothing of it, and the order does no harm.
    options = f"ASAN_OPTIONS={place.environment().get('ASAN_OPTIONS', '')}:verify_asan_link_order=0"
    return ["env", f"LD_PRELOAD={place.within_reach(library())}", options, *given]


class Link:
    """What a symbolic link holds; one never changes."""

    __slots__ = ("target",)

    def __init__(self, target):
        self.target = target

    def __eq__(self, other):
        return isinstance(other, Link) and self.target == other.target

    def __hash__(self):
        return hash(self.target)

    def __repr__(self):
        return f"-> {self.target}"


# ---- the journal


class Operation:
    """What the program did between two records: `began` and `ended` are their numbers (`ended` None: it never did)."""

    __slots__ = ("kind", "flags", "ino", "ino2", "off", "len", "name", "name2", "data", "began", "ended",
                 "result", "errno", "made", "covers", "change", "order")

    def __repr__(self):
        what = [k for k, v in globals().items() if v == self.kind and k.isupper() and k not in ("SECTOR", "KEEP_SIZE")]
        return (f"#{self.began} {what[0]} ino={self.ino} off={self.off} len={len(self.data) or self.len} "
                f"{self.name} {self.name2} -> {self.result}")


class Journal:
    """`records` is a list of (operation, whether this is its end)."""

    def __init__(self, path):
        with open(path, "rb") as f:
            raw = f.read()
        self.records = []
        self.times = []
        running, at = {}, 0
        while at + _HEAD.size <= len(raw):
            size = _HEAD.unpack_from(raw, at)[0]
            if at + size > len(raw):
                break  # the program was killed while it appended: the operation had not begun
            self._add(running, raw, at)
            at += size

    def _add(self, running, raw, at):
        size, kind, flags, number, time_ns, ino, ino2, off, length, len1, len2, pid = _HEAD.unpack_from(raw, at)
        self.times.append(time_ns)
        if kind == END:
            op = running.pop((pid, number))
            op.result, op.errno, op.made, op.ended = off, length, ino, len(self.records)
            self.records.append((op, True))
            return
        op = Operation()
        names = at + _HEAD.size
        op.kind, op.flags, op.ino, op.ino2, op.off, op.len = kind, flags, ino, ino2, off, length
        op.name = os.fsdecode(raw[names:names + len1])
        op.name2 = os.fsdecode(raw[names + len1:names + len1 + len2])
        op.data = raw[names + len1 + len2:at + size]
        op.began, op.ended, op.result, op.errno, op.made = len(self.records), None, None, 0, 0
        running[pid, number] = op
        self.records.append((op, False))

    def __len__(self):
        return len(self.records)

    def operations(self, *kinds):
        return [op for op, ended in self.records if not ended and (not kinds or op.kind in kinds)]

    def without(self, condition):
        """The journal of a program that left these operations out: for tests of what judges journals."""
        kept = [(record, time) for record, time in zip(self.records, self.times) if not condition(record[0])]
        self.records, self.times = [record for record, _ in kept], [time for _, time in kept]
        for n, (op, ended) in enumerate(self.records):
            if ended:
                op.ended = n
            else:
                op.began = n
        return self

    def time_of(self, upto):
        """A moment (time.monotonic_ns) when no more than so many records had been appended."""
        return self.times[upto] if upto < len(self.times) else self.times[-1]


# ---- files and directories


def _resize(content, length):
    if length < len(content):
        del content[length:]
    else:
        content.extend(bytes(length - len(content)))


class _Change:
    """A change of a file: `data` at `off`, or a new length (exactly, or at least)."""

    __slots__ = ("off", "data", "length", "exact", "done")

    def __init__(self, off=0, data=b"", length=None, exact=False):
        self.off, self.data, self.length, self.exact, self.done = off, data, length, exact, False

    def apply(self, content):
        if self.length is not None:
            if self.exact or self.length > len(content):
                _resize(content, self.length)
        elif self.data:
            self.put(content, self.off, self.off + len(self.data))

    def put(self, content, start, stop):
        """Only these bytes of it."""
        if len(content) < start:
            _resize(content, start)
        content[start:stop] = self.data[start - self.off:stop - self.off]

    def sectors(self):
        """(start, stop) of each piece that is in one sector."""
        at, stop = self.off, self.off + len(self.data)
        while at < stop:
            following = min(stop, at - at % SECTOR + SECTOR)
            yield at, following
            at = following


class _File:
    def __init__(self, content=b"", ino=None):
        self.ino = ino
        self.now = bytearray(content)      # what the program sees
        self.durable = bytearray(content)
        self.pending = []
        self._settled = None

    def begin(self, change):
        self.pending.append(change)
        self._settled = None

    def end(self, change, worked):
        if worked:
            change.done = True
            change.apply(self.now)
        else:
            self.pending = [c for c in self.pending if c is not change]

    def covered(self):
        return [c for c in self.pending if c.done]

    def synced(self, changes, worked):
        for change in changes:
            if worked and any(c is change for c in self.pending):
                change.apply(self.durable)
        gone = set(map(id, changes))
        self.pending = [c for c in self.pending if id(c) not in gone]
        self._settled = None

    def after_cut(self, rng, mode):
        if not self.pending:
            if self._settled is None:
                self._settled = bytes(self.durable)  # the same object each time: its hash is computed once
            return self._settled
        content = bytearray(self.durable)
        if mode == "sectors" and all(c.length is None or not c.exact for c in self.pending):
            self._mix_sectors(rng, content)
        else:
            for change, fate in self._fates(rng, mode):
                _happen(rng, change, fate, content)
        return bytes(content)

    def _fates(self, rng, mode):
        if mode in ("none", "all"):
            return [(c, mode) for c in self.pending]
        if mode == "prefix":
            n = rng.randint(0, len(self.pending))
            return [(c, "all") for c in self.pending[:n]] + [(c, "torn") for c in self.pending[n:n + 1]]
        return [(c, rng.choice(("none", "all", "torn"))) for c in self.pending]

    def _mix_sectors(self, rng, content):
        """Each sector has one of the versions it had, and the file one of the lengths it had."""
        versions, lengths, full = {}, [len(content)], bytearray(content)
        for change in self.pending:
            change.apply(full)
            lengths.append(len(full))
            for start, stop in change.sectors():
                versions.setdefault(start // SECTOR, []).append((change, start, stop))
        length = rng.choice(lengths)
        _resize(content, max(length, len(content)))
        for pieces in versions.values():
            for change, start, stop in pieces[:rng.randint(0, len(pieces))]:
                if stop <= len(content):
                    change.put(content, start, stop)


def _happen(rng, change, fate, content):
    if fate == "all" or (fate == "torn" and change.length is not None and rng.random() < 0.5):
        change.apply(content)
    elif fate == "torn" and change.data:
        for start, stop in change.sectors():
            if rng.random() < 0.5:
                change.put(content, start, stop)


class _NameChange:
    """`order`: its number among those of all directories, in the order in which they ended; None: it is under way."""

    __slots__ = ("names", "done", "lost", "order")

    def __init__(self, names):
        self.names, self.done, self.lost, self.order = names, False, False, None

    def apply(self, entries):
        for name, node in self.names.items():
            if node is None:
                entries.pop(name, None)
            else:
                entries[name] = node


class _Directory:
    def __init__(self, ino=None):
        self.ino = ino
        self.now = {}
        self.durable = {}
        self.pending = []

    def covered(self):
        return [c for c in self.pending if c.done and not c.lost]

    def synced(self, changes, worked):
        for change in changes:
            if not worked:
                change.lost = True
            elif change in self.pending:
                change.apply(self.durable)
                self.pending.remove(change)

    def _with(self, changes):
        entries = dict(self.durable)
        for change in changes:
            change.apply(entries)
        return entries

    def after_cut(self, rng, mode):
        if mode == "prefix":
            return self._with(self.pending[:rng.randint(0, len(self.pending))])
        return self._with([c for c in self.pending if rng.random() < 0.5])

    def up_to(self, order):
        """As a journal has it that goes so far."""
        return self._with([c for c in self.pending if c.order is not None and c.order <= order])

    def possible(self):
        """All that a cut could leave; of very many, those that lack one change or have only one."""
        n = len(self.pending)
        if n <= 6:
            return [self._with([c for i, c in enumerate(self.pending) if bits >> i & 1]) for bits in range(1 << n)]
        return ([self._with(self.pending[:i]) for i in range(n + 1)]
                + [self._with(self.pending[:i] + self.pending[i + 1:]) for i in range(n)]
                + [self._with([c]) for c in self.pending])


# ---- the whole


def snapshot(directory):
    """The start of a Disk: a list of (path, inode, content), the top first."""
    found = [("", os.stat(directory).st_ino, None)]
    for top, directories, files in os.walk(directory):
        for name in sorted(directories) + sorted(files):
            path = os.path.join(top, name)
            found.append((os.path.relpath(path, directory), os.lstat(path).st_ino, content_of(path)))
    return found


def image_of(directory):
    """What lies there now, as cuts are written."""
    return {path: content for path, _, content in snapshot(directory) if path}


def content_of(path):
    if os.path.islink(path):
        return Link(os.readlink(path))
    if os.path.isdir(path):
        return None
    with open(path, "rb") as f:
        return f.read()


class Disk:
    """The directory and what is durable of it, at a moment of the journal."""

    def __init__(self, start):
        self.played = 0
        self._changed = 0    # names, by operations that have ended
        self._journalled = 0  # of them, those that ended before a sync began that has succeeded
        self._by_inode = {}
        paths = {}
        for path, ino, content in start:
            node = paths[path] = self._by_inode[ino] = _node(ino, content)
            if path:
                parent = paths[os.path.dirname(path)]
                parent.now[os.path.basename(path)] = parent.durable[os.path.basename(path)] = node
        self.top = paths[""]
        self._nodes = list(paths.values())

    def play(self, journal, upto=None):
        """Goes on from the record that it stands at."""
        upto = len(journal) if upto is None else upto
        assert upto >= self.played
        for op, ended in journal.records[self.played:upto]:
            (self._end if ended else self._begin)(op)
        self.played = upto
        return self

    def _begin(self, op):
        assert op.kind != STRANGE, f"the library cannot express what the program did: {op}"
        if op.kind in NAME_CHANGES:
            op.change = list(self._name_changes(op))
            for directory, change in op.change:
                directory.pending.append(change)
        elif op.kind in (WRITE, TRUNCATE, ALLOCATE):
            op.change = _file_change(op)
            self._by_inode[op.ino].begin(op.change)
        elif op.kind in (SYNC, SYNC_ALL):
            nodes = self._nodes if op.kind == SYNC_ALL else [self._by_inode[op.ino]]
            op.covers = [(node, node.covered()) for node in nodes if not isinstance(node, Link)]
            op.order = self._changed

    def _end(self, op):
        worked = op.result >= 0
        if op.kind in NAME_CHANGES:
            self._end_names(op, worked)
        elif op.kind in (WRITE, TRUNCATE, ALLOCATE):
            if op.kind == WRITE and worked:
                op.change.data = op.change.data[:op.result]
            node = self._by_inode[op.ino]
            node.end(op.change, worked)
            if op.kind == WRITE and op.flags:
                node.synced([op.change], worked)
        elif op.kind in (SYNC, SYNC_ALL):
            for node, changes in op.covers:
                node.synced(changes, worked)
            if worked:
                self._journalled = max(self._journalled, op.order)

    def _end_names(self, op, worked):
        self._changed += worked
        for directory, change in op.change:
            if not worked:
                directory.pending.remove(change)
                continue
            change.done, change.order = True, self._changed
            change.apply(directory.now)
            if op.kind in (CREATE, MKDIR):
                node = self._by_inode[op.made] = change.names[op.name]
                node.ino = op.made

    def _name_changes(self, op):
        """(directory, change) for each directory that the operation changes."""
        here = self._by_inode[op.ino]
        if op.kind in (CREATE, MKDIR, SYMLINK):
            node = _File() if op.kind == CREATE else _Directory() if op.kind == MKDIR else Link(op.name2)
            self._nodes.append(node)
            yield here, _NameChange({op.name: node})
            return
        if op.kind == UNLINK:
            yield here, _NameChange({op.name: None})
            return
        node = here.now.get(op.name)
        there = self._by_inode[op.ino2]
        gone = {op.name: None} if op.kind == RENAME else {}
        if here is there:
            yield here, _NameChange({**gone, op.name2: node})
        else:
            yield there, _NameChange({op.name2: node})
            if gone:
                yield here, _NameChange(gone)

    # ---- what may be left

    def now(self):
        """What the program sees."""
        return self._image(self.top, lambda d: d.now, lambda f: bytes(f.now))

    def unsettled(self):
        """Names that operations under way are about, and names of files that they change."""
        found = {name for node in self._nodes if isinstance(node, _Directory)
                 for change in node.pending if not change.done for name in change.names}
        return found | set(self._image(self.top, lambda d: {
            name: node for name, node in d.now.items()
            if isinstance(node, _Directory)
            or (isinstance(node, _File) and any(not c.done for c in node.pending))}, lambda f: b""))

    def cut(self, rng, names, data):
        if names == "journal":
            order = rng.randint(self._journalled, self._changed)
            return self._image(self.top, lambda d: d.up_to(order), lambda f: f.after_cut(rng, data))
        return self._image(self.top, lambda d: d.after_cut(rng, names), lambda f: f.after_cut(rng, data))

    def inode(self, name):
        """Of the file or directory in the top that has this name, or had it since the last sync; None: there is none."""
        for entries in (self.top.now, self.top.durable, *(change.names for change in self.top.pending)):
            if entries.get(name) is not None:
                return entries[name].ino
        return None

    def worst_cuts(self, rng):
        """Every state of the names in the directory, without and with all that was not synced."""
        for entries in self.top.possible():
            for data in ("none", "all"):
                yield self._image(self.top, lambda d, e=entries: e if d is self.top else d.after_cut(rng, "any"),
                                  lambda f, m=data: f.after_cut(rng, m))

    def _image(self, directory, entries, content, prefix=""):
        image = {}
        for name, node in entries(directory).items():
            if isinstance(node, _Directory):
                image[prefix + name] = None
                image.update(self._image(node, entries, content, f"{prefix}{name}/"))
            elif node is not None:
                image[prefix + name] = node if isinstance(node, Link) else content(node)
        return image


def _node(ino, content):
    if content is None:
        return _Directory(ino)
    return content if isinstance(content, Link) else _File(content, ino)


def _file_change(op):
    if op.kind == WRITE:
        return _Change(op.off, op.data)
    if op.kind == TRUNCATE:
        return _Change(length=op.off if not op.name else 0, exact=True)
    if op.flags & (PUNCH_HOLE | ZERO_RANGE):
        assert not op.flags & KEEP_SIZE, f"not known here: {op}"
        return _Change(op.off, bytes(op.len))
    return _Change(length=0 if op.flags & KEEP_SIZE else op.off + op.len)


def assert_complete(disk, directory):
    """The journal accounts for every byte in the directory: the program did nothing that the library cannot see.

    But for what was under way when it was killed.
    """
    unsettled = disk.unsettled()
    real = {path: content for path, _, content in snapshot(directory) if path and path not in unsettled}
    made = {path: content for path, content in disk.now().items() if path not in unsettled}
    assert sorted(made) == sorted(real), f"names: journal {sorted(made)}, directory {sorted(real)}"
    for path, content in real.items():
        assert content == made[path], f"{path} differs from what the journal says"


def materialise(image, directory, place):
    """Writes a cut's directory, in place of what is there.  A directory that stays is the same one (its inode)."""
    there = image_of(directory)
    for path in sorted(there, reverse=True):
        if path not in image or type(image[path]) is not type(there[path]):
            _remove(os.path.join(directory, path), there.pop(path))
    for path, content in sorted(image.items()):
        if path not in there or content != there[path]:
            _put(os.path.join(directory, path), content)
            place.give(os.path.join(directory, path))


def _remove(path, content):
    (os.rmdir if content is None else os.unlink)(path)


def _put(path, content):
    if content is None:
        os.mkdir(path, 0o700)
    elif isinstance(content, Link):
        if os.path.lexists(path):
            os.unlink(path)
        os.symlink(content.target, path)
    else:
        with open(path, "wb") as f:
            f.write(content)
        os.chmod(path, 0o600)


# ---- what the program told the server


class Status:
    """A status message; `began` is the record before which nothing of it was sent."""

    __slots__ = ("began", "written", "flushed", "applied")

    def __init__(self, began, body):
        self.began = began
        self.written, self.flushed, self.applied = struct.unpack_from("!QQQ", body, 1)


def conversations(journal):
    """Everything that was said on each socket: a list of [(number of record, type, body)], type "" at the start.

    For PostgreSQL's protocol without TLS ("Message Formats").
    """
    said = {}
    for op in journal.operations(SEND):
        sent = op.data if op.result is None else op.data[:max(op.result, 0)]
        said.setdefault(op.ino, []).append((op.began, sent))
    return [list(_messages(pieces)) for pieces in said.values()]


def _messages(pieces):
    raw = b"".join(data for _, data in pieces)
    starts, at = [], 0
    for began, data in pieces:
        starts.append((at, began))
        at += len(data)
    started, at, piece = False, 0, 0
    while len(raw) - at >= 8 - 3 * started:
        head = 1 if started else 0
        length = struct.unpack_from("!I", raw, at + head)[0]
        if at + head + length > len(raw):
            break
        body = raw[at + head + 4:at + head + length]
        while piece + 1 < len(starts) and starts[piece + 1][0] <= at:
            piece += 1
        yield starts[piece][1], chr(raw[at]) if started else "", body
        # SSLRequest and GSSENCRequest stand before the startup message.
        started = started or struct.unpack("!I", body[:4])[0] >> 16 == 3
        at += head + length


def statuses(journal):
    """All status messages ("Standby status update"), in the order in which they were sent."""
    found = [Status(began, body) for talk in conversations(journal) for began, kind, body in talk
             if kind == "d" and body[:1] == b"r"]
    return sorted(found, key=lambda status: status.began)


def streams(journal):
    """(timeline, position) of each START_REPLICATION."""
    asked = [body.decode() for talk in conversations(journal) for _, kind, body in talk if kind == "Q"]
    found = [re.search(r"START_REPLICATION.* ([0-9A-F]+/[0-9A-F]+) TIMELINE (\d+)", text) for text in asked]
    return [(int(m[2]), m[1]) for m in found if m]
