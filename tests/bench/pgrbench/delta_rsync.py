"""What one does without --delta: an rsync daemon beside the server, and a script between backup start and stop."""

import os
import subprocess

from pgrtest import installs
from pgrtest.place import wait_until
from pgrtest.server import free_port

CONFIGURATION = """\
use chroot = no
address = 127.0.0.1
port = {port}
[data]
path = {path}
read only = yes
"""

# psql holds the backup's session while rsync runs; a failure of rsync is told by the file that is then missing.
SCRIPT = """\
set -e
psql=$1 conninfo=$2 start=$3 stop=$4 target=$5 from=$6 aside=$7
shift 7
copy="rsync -a --delete --inplace $* --exclude=/pg_wal/* --exclude=/pg_replslot/* --exclude=/postmaster.pid"
copy="$copy --exclude=/postmaster.opts --exclude=pg_internal.init* $from $target/ && touch $aside/done"
"$psql" -XAtq -v ON_ERROR_STOP=1 -d "$conninfo" -c "SELECT $start" -c "\\\\! $copy" -c "SELECT labelfile FROM $stop" \\
    >"$aside/label"
rm "$aside/done"
tail -n +2 "$aside/label" >"$target/backup_label"
sync -f "$target"
"""


class Daemon:
    """rsync --daemon over a server's directory, as the server's user."""

    def __init__(self, place, server):
        self.port = free_port()
        self._server, self._aside = server, place.directory()
        configuration = place.write(os.path.join(self._aside, "rsyncd.conf"),
                                    CONFIGURATION.format(port=self.port, path=server.data))
        self._script = place.write(os.path.join(self._aside, "rsync.sh"), SCRIPT)
        self._process = subprocess.Popen(
            place.command(["rsync", "--daemon", "--no-detach", f"--config={configuration}"]), env=place.environment(),
            cwd=place.base, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.pid = self._process.pid
        wait_until(self._answers, "the rsync daemon answers")

    def _answers(self):
        assert self._process.poll() is None, "the rsync daemon has ended"
        asked = subprocess.run(["rsync", f"rsync://127.0.0.1:{self.port}/"], capture_output=True, check=False)
        return asked.returncode == 0

    def command(self, conninfo, target, port, options):
        """`port`: the daemon's, or of a relay before it."""
        if self._server.major >= 15:
            start, stop = "pg_backup_start('rsync', true)", "pg_backup_stop(false)"
        else:
            start, stop = "pg_start_backup('rsync', true, false)", "pg_stop_backup(false, false)"
        return ["sh", self._script, installs.client("psql"), conninfo, start, stop, target,
                f"rsync://127.0.0.1:{port}/data/", self._aside, *options]

    def stop(self):
        self._process.terminate()
        self._process.wait()
