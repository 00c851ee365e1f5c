"""Real servers and real programs for the integration tests.

place       where things run: the unprivileged user, the session's directory, waiting
installs    which PostgreSQL programs there are
process     a program that runs, in the background or to its end
programs    the programs under test, and what every run of them must keep to
server      a cluster: initdb, start, stop, kill, promote, SQL
content     what the test databases hold, and a writer that keeps changing it
checks      judgements about a seeded directory by others
conninfo    the primary_conninfo that -R writes, taken apart
tls         certificates
relay       a slow, distant or faulty network
wal         names of WAL files, comparison with a server's own
powercut    what a power cut could have left of a directory, and what was promised by then
archive     what a directory of segments holds, plain or compressed
commits     clients that know which of their commits they were told of
cuts        rounds of a sink that power cuts end, and what must be true of them
seedcuts    runs of pgr-basebackup that power cuts end, and what must be true of the directory
churn       changes of everything that a server holds
delta       a directory that is made over: its scene, and what must be true afterwards
oldcopies   kinds of directories that are made over
trees       what lies in a directory, described and compared
controlfile pg_control with other values
"""
