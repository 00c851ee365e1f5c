"""The benchmark: pgr-basebackup and pg_basebackup on the same server and data, in turns.

harness   what the programs of all benchmarks share: options, results, cases to choose
machine   the network namespace, counters of the kernel, a quiet moment, facts for the page
meter     one run: time, processor, memory, bytes on the wire
data      servers and what their databases hold
cases     what is compared
contest   runs a case, round after round
page      docs/BENCHMARKS.md
delta_*   the same for old copies that are made over
memory    a bound on what several processes use together
plot      its drawings
"""

import os
import sys

# The tests' servers and programs.
sys.path.append(os.path.join(os.path.dirname(__file__), "..", "..", "integration"))
# Nothing here has to be quick; this only ends what hangs.
os.environ.setdefault("PGR_PATIENCE", "3600")
# Every copy is removed: the disk would not hold them all.
os.environ.pop("PGR_KEEP", None)
