"""The primary_conninfo that -R writes, taken apart."""

import os
import re


def recovery_text(install, target):
    """The file that tells the standby where its primary is."""
    name = "postgresql.auto.conf" if install.major >= 12 else "recovery.conf"
    with open(os.path.join(target, name), encoding="utf-8") as f:
        return f.read()


def setting(text, name):
    """The last value of a setting in a configuration file, or None."""
    found = re.findall(rf"^{name} = '((?:[^'\\]|''|\\\\)*)'$", text, re.MULTILINE)
    return found[-1].replace("''", "'").replace("\\\\", "\\") if found else None


def parse(conninfo):
    """{keyword: value} of a connection string."""
    pairs = re.findall(r"\s*(\w+)=(?:'((?:[^'\\]|\\.)*)'|(\S*))", conninfo)
    return {k: re.sub(r"\\(.)", r"\1", quoted or plain) for k, quoted, plain in pairs}


def of_standby(install, target):
    return parse(setting(recovery_text(install, target), "primary_conninfo"))
