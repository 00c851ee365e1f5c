"""Options and messages that need no server: the same as those of PostgreSQL's own programs."""

import os

import pytest


BASEBACKUP_MISTAKES = {
    "no directory": ([], "must specify output directory or backup target"),
    "unknown option": (["--nonsense"], "unrecognized option '--nonsense'"),
    "extra argument": (["-D", "x", "extra"], 'too many command-line arguments (first is "extra")'),
    "format": (["-D", "x", "-F", "zip"], 'invalid output format "zip", must be "plain" or "tar"'),
    "wal method": (["-D", "x", "-X", "often"],
                   'invalid wal-method option "often", must be "fetch", "stream", or "none"'),
    "checkpoint": (["-D", "x", "-c", "slow"], 'invalid checkpoint argument "slow", must be "fast" or "spread"'),
    "rate": (["-D", "x", "-r", "1"], 'transfer rate "1" is out of range'),
    "rate unit": (["-D", "x", "-r", "100T"], 'invalid --max-rate unit: "T"'),
    "interval": (["-D", "x", "-s", "often"], 'invalid value "often" for option -s/--status-interval'),
    "slot and none": (["-D", "x", "-S", "s", "-X", "none"],
                      "replication slots can only be used with WAL streaming"),
    "slot and no slot": (["-D", "x", "-S", "s", "--no-slot"], "--no-slot cannot be used with slot name"),
    "create no slot": (["-D", "x", "-C"], "--create-slot needs a slot to be specified using --slot"),
    "create and no slot": (["-D", "x", "-C", "-S", "s", "--no-slot"], "--no-slot cannot be used with slot name"),
    "estimate": (["-D", "x", "-P", "--no-estimate-size"],
                 "--progress and --no-estimate-size are incompatible options"),
    "manifest": (["-D", "x", "--no-manifest", "--manifest-checksums=SHA256"],
                 "--no-manifest and --manifest-checksums are incompatible options"),
    "encoded manifest": (["-D", "x", "--no-manifest", "--manifest-force-encode"],
                         "--no-manifest and --manifest-force-encode are incompatible options"),
    "relative waldir": (["-D", "x", "--waldir=wal"], "WAL directory location must be an absolute path"),
    "mapping": (["-D", "x", "-T", "/a"], 'invalid tablespace mapping format "/a", must be "OLDDIR=NEWDIR"'),
    "mapping with signs": (["-D", "x", "-T", "/a=/b=/c"], 'multiple "=" signs in tablespace mapping'),
    "mapping from relative": (["-D", "x", "-T", "a=/b"],
                              "old directory is not an absolute path in tablespace mapping: a"),
    "mapping to relative": (["-D", "x", "-T", "/a=b"],
                            "new directory is not an absolute path in tablespace mapping: b"),
    "compression": (["-D", "x", "-Z", "brotli"], 'unrecognized compression algorithm: "brotli"'),
    "compression level": (["-D", "x", "-Z", "gzip:10"],
                          'compression algorithm "gzip" expects a compression level between 1 and 9'),
    "client compression": (["-D", "x", "-Z", "gzip"], "only tar mode backups can be compressed"),
    "WAL to stdout": (["-D", "-", "-Ft"], "cannot stream write-ahead logs in tar mode to stdout"),
    "waldir of a tar": (["-D", "x", "-Ft", "--waldir=/wal"],
                        "WAL directory location can only be specified in plain mode"),
    "verified tar": (["-D", "x", "-Ft", "--verify-transfer"],
                     "--verify-transfer and --format=tar are incompatible options"),
    "delta method": (["-D", "x", "--delta=guess"],
                     'invalid delta method "guess", must be "hash" or "summary"'),
    "delta of a tar": (["-D", "x", "-Ft", "--delta"], "--delta and --format=tar are incompatible options"),
    "hashes over a stream": (["-D", "x", "--delta=hash", "-j1"],
                             "--delta=hash and --jobs=1 are incompatible options"),
    "hashes and fetch": (["-D", "x", "--delta=hash", "-X", "fetch"],
                         "--delta=hash and --wal-method=fetch are incompatible options"),
    "hashes, compressed": (["-D", "x", "--delta=hash", "-Z", "server-gzip"],
                           "--delta=hash and compression on the server are incompatible options"),
    "dry run of a seed": (["-D", "x", "--dry-run"], "--dry-run can only be used with --delta"),
    "keep in a seed": (["-D", "x", "--keep=log"], "--keep can only be used with --delta"),
    "no keep in a seed": (["-D", "x", "--no-keep"], "--no-keep can only be used with --delta"),
    "retry of a seed": (["-D", "x", "--retry=3"], "--retry can only be used with --delta"),
    "number of retries": (["-D", "x", "--delta", "--retry=often"], 'invalid value "often" for option --retry'),
    "keep a relation": (["-D", "x", "--delta", "--keep=base/5/1259"], "base/5/1259"),
    "manifest and server": (["-D", "-", "-Ft", "-X", "fetch", "-Z", "server-gzip"],
                            "cannot inject manifest into a compressed tar file"),
    "recovery and server": (["-D", "x", "-Ft", "-R", "-Z", "server-gzip"],
                            "cannot inject recovery configuration into a compressed tar file"),
}

RECEIVEWAL_MISTAKES = {
    "no directory": ([], "no target directory specified"),
    "unknown option": (["--nonsense"], "unrecognized option '--nonsense'"),
    "extra argument": (["-D", "x", "extra"], 'too many command-line arguments (first is "extra")'),
    "both actions": (["-S", "s", "--create-slot", "--drop-slot"],
                     "cannot use --create-slot together with --drop-slot"),
    "create no slot": (["--create-slot"], "--create-slot needs a slot to be specified using --slot"),
    "drop no slot": (["--drop-slot"], "--drop-slot needs a slot to be specified using --slot"),
    "synchronous": (["-D", "x", "--synchronous", "--no-sync"], "cannot use --synchronous together with --no-sync"),
    "end": (["-D", "x", "-E", "here"], 'could not parse end position "here"'),
    "interval": (["-D", "x", "-s", "-1"], "-s/--status-interval must be in range 0..2147483"),
    "compression": (["-D", "x", "-Z", "none:1"],
                    'compression algorithm "none" does not accept a compression level'),
}


def check_mistake(process, message):
    """The message, the way out, exit code 1, and nothing done."""
    assert process.wait() == 1, str(process)
    assert message in process.err, str(process)
    assert process.out == ""
    assert os.listdir(process.directory) and "x" not in os.listdir(process.directory)


@pytest.mark.parametrize("case", BASEBACKUP_MISTAKES)
def test_basebackup_mistakes(run, case):
    options, message = BASEBACKUP_MISTAKES[case]
    check_mistake(run.start_basebackup(*options), message)


@pytest.mark.parametrize("case", RECEIVEWAL_MISTAKES)
def test_receivewal_mistakes(run, case):
    options, message = RECEIVEWAL_MISTAKES[case]
    check_mistake(run.start_receivewal(*options), message)


def both(run):
    return {"pg_basebackup": run.basebackup_path, "pg_receivewal": run.receivewal_path}


@pytest.mark.parametrize("option", ["--help", "-?"])
@pytest.mark.parametrize("name", ["pg_basebackup", "pg_receivewal"])
def test_help(run, name, option):
    done = run.start(both(run)[name], option)
    assert done.wait() == 0 and done.err == "" and "Usage:" in done.out, str(done)
    assert max(map(len, done.out.split("\n"))) <= 95


@pytest.mark.parametrize("option", ["--version", "-V"])
@pytest.mark.parametrize("name", ["pg_basebackup", "pg_receivewal"])
def test_called_by_the_other_name(run, place, name, option):
    """As a symbolic link; scripts read the version of PostgreSQL from it, and the name stands before each message."""
    link = os.path.join(place.directory(), name)
    os.symlink(both(run)[name], link)
    done = run.start(link, option)
    assert done.wait() == 0 and done.err == "" and done.out.startswith(f"{name} (PostgreSQL) "), str(done)
    mistaken = run.start(link, "--nonsense")
    assert mistaken.wait() == 1
    assert f'{name}: hint: Try "{name} --help" for more information.' in mistaken.err
