"""Addresses of indexes in databases: `lance://FOLDER/NAME`, `lance://s3://bucket/folder/NAME`,
`qdrant://HOST:6333/NAME`, `qdrant+https://HOST:6333/NAME`.

Keys are never part of an address, which is printed and stored: they are in environment variables.
"""

import os
import re
from typing import Any
from urllib.parse import urlsplit

from .table import Table

SCHEMES = ("lance://", "qdrant://", "qdrant+https://")
SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
NAME = re.compile(r"[A-Za-z0-9_.-]+")


def is_address(place: Any) -> bool:
    """Whether a place is written as an address, also one that `table_at` refuses, and not as a folder."""
    return isinstance(place, str) and SCHEME.match(place) is not None


def table_at(address: str) -> Table:
    """The table of an address; whether it is there is not asked.

    Raises:
        ValueError: an address that cannot be read, or holds a user, a password or options.
    """
    scheme, rest = address.split("://", 1)
    scheme = scheme.lower()
    if f"{scheme}://" not in SCHEMES:  # it may hold a password and is not repeated
        raise ValueError(
            f"{scheme}:// is no place for an index: name a folder, lance://FOLDER/NAME (in an object store "
            "lance://s3://BUCKET/FOLDER/NAME), or qdrant://HOST:6333/NAME"
        )
    base, _, name = rest.rpartition("/")
    host = base.split("://")[-1].split("/")[0]
    secret = "?" in rest or "#" in rest or (("@" in host) and (scheme != "lance" or "://" in base))
    if secret:  # the address itself is not repeated
        raise ValueError(f"an address of {scheme}:// takes no user, password or options: set environment variables")
    if not base or not NAME.fullmatch(name):
        form = "lance://FOLDER/NAME" if scheme == "lance" else f"{scheme}://HOST:6333/NAME"
        raise ValueError(f"{address}: an index there is called {form}; NAME has letters, digits, _ . and -")
    if scheme == "lance":
        from .lance import LanceTable

        if base.lower().startswith("db://"):
            raise ValueError(f"{address}: LanceDB Cloud is not supported, only a folder or an object store")
        if "://" not in base:  # the same index has the same address from every working directory
            base = os.path.abspath(os.path.expanduser(base))
        return LanceTable(f"lance://{base}/{name}", base, name)
    from .qdrant import QdrantTable

    try:
        parts = urlsplit(f"//{base}")
        server = parts.hostname or "", parts.port or 6333
    except ValueError:  # of the port
        server = "", 0
    if parts.path or not server[0]:
        raise ValueError(f"{address}: an index there is called {scheme}://HOST:6333/NAME")
    host = f"[{server[0]}]" if ":" in server[0] else server[0]
    return QdrantTable(f"{scheme}://{host}:{server[1]}/{name}", (scheme, *server), name)


__all__ = ["is_address", "table_at"]
