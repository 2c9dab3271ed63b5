"""Packages of a Python client, for a script that talks to the broker by itself."""

import os
import pathlib
import sys

from harness.broker import CLIENTS
from harness.cases import Client


def use(name):
    """Has a client's packages installed and found. Why they cannot be had here, or None."""
    client = Client(name)
    if reason := client.install():
        return reason
    cache = os.environ.get("MILLSTREAM_CLIENTS") or CLIENTS.parent.parent / "target" / "clients"
    folders = [str(folder) for folder in (pathlib.Path(cache) / client.folder.name).glob("lib/python3*/site-packages")]
    if not folders:
        return f"{name} was installed, and its packages are not there"
    sys.path[:0] = folders
    return None
