"""What keeps a pickle's code from credentials and from the network. Standard library only: it runs before all else.

The code still runs as the user who typed the command: it can read and change that user's files, and connect to sockets
that are files. So a pickle is loaded only if a person trusts its author.
"""

import ctypes
import os
import site
import socket
from collections.abc import Mapping
from pathlib import Path

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
# All that Python and its libraries need to start. No variable that names a server, a key or a file with one is here.
KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "OMP_NUM_THREADS", "PYTHONPATH")


class NetworkNotCut(OSError):
    """This system does not let the process give up its network; the message says why."""


def bare_environment(home: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the few variables of an environment that a conversion needs, with an empty folder as its home."""
    kept = {name: environment[name] for name in KEPT_VARIABLES if name in environment}
    return {**kept, "HOME": str(home), "TMPDIR": str(home), "PYTHONUSERBASE": site.getuserbase()}


def cut_network() -> None:
    """Move this process to a network of its own that has no way out; it must not have started a thread yet.

    Linux lets root do so, and others where users may have namespaces of their own.

    Raises:
        NetworkNotCut: The system refuses.
    """
    unshare = getattr(ctypes.CDLL(None, use_errno=True), "unshare", None)
    if unshare is None:
        raise NetworkNotCut("only Linux can take the network from a process")
    if unshare(CLONE_NEWNET) != 0 and unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        raise NetworkNotCut(f"unshare: {os.strerror(ctypes.get_errno())}")
    if others := [name for _, name in socket.if_nameindex() if name != "lo"]:
        raise NetworkNotCut(f"it still has {', '.join(others)}")
