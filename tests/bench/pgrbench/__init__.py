"""The benchmark: pgr-basebackup and pg_basebackup on the same server and data, in turns.

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
