"""Where things lie on this machine, and the environment variables that say so.

| variable | meaning | default |
|---|---|---|
| ZKML_RAY_CACHE | this machine's keys, circuits and SRS files | ~/.cache/zkml_ray |
| ZKML_RAY_STORE | the store that commands use without --store | ./zkml-ray-store |
| ZKML_RAY_SRS_DIR | ceremony SRS files, kzg<logrows>.srs | none: an insecure SRS is generated |
| ZKML_RAY_CACHE_MAX_BYTES | copies of stored objects kept on this machine | 20 GiB |
| ZKML_RAY_KEYS_MAX_BYTES | keys made on this machine and kept | half of what its disk can give |
| ZKML_RAY_STORE_DEADLINE_S | longest time a store may go without progress | 60 |
| ZKML_RAY_PROFILE | prices that predictions use | this machine's, else the shipped ones |
| ZKML_RAY_STORE_TIMEOUT_S | longest silence within one request to a store | 20 |

Endpoint and credentials of S3 stores: `zkml_ray.stores.s3config`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from zkml_ray.errors import ConfigError
from zkml_ray.machine import cores

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def cache_dir() -> Path:
    """Folder of this machine's key and SRS cache (created on first use by its owners)."""
    configured = os.environ.get("ZKML_RAY_CACHE")
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "zkml_ray"


def default_store_url() -> str:
    """Store that is used when none is named."""
    return os.environ.get("ZKML_RAY_STORE", "./zkml-ray-store")


def srs_dir() -> Path | None:
    """Folder of ceremony SRS files, if the environment names one."""
    configured = os.environ.get("ZKML_RAY_SRS_DIR")
    return Path(configured).expanduser() if configured else None


def cache_max_bytes() -> int:
    """Largest size of this machine's cache of stored objects.

    Raises:
        ConfigError: The variable is not a positive number.
    """
    return int(_positive("ZKML_RAY_CACHE_MAX_BYTES", 20 << 30))


def keys_max_bytes() -> int | None:
    """Largest size of the keys that were made on this machine; None: not set.

    Raises:
        ConfigError: The variable is not a positive number.
    """
    if not os.environ.get("ZKML_RAY_KEYS_MAX_BYTES"):
        return None
    return int(_positive("ZKML_RAY_KEYS_MAX_BYTES", 0))


def store_deadline_s() -> float:
    """Longest time that an operation on a store may go without progress.

    Raises:
        ConfigError: The variable is not a positive number.
    """
    return _positive("ZKML_RAY_STORE_DEADLINE_S", 60)


def store_timeout_s() -> float:
    """Longest silence within one request to a store, and longest wait for a connection.

    Raises:
        ConfigError: The variable is not a positive number.
    """
    return _positive("ZKML_RAY_STORE_TIMEOUT_S", 20)


_SIZE_PATTERN = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?(KiB|MiB|GiB|TiB)", re.IGNORECASE)
_SIZE_UNITS = {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}


def parse_size(option: str, text: str) -> int:
    """Bytes of a size such as 2GiB, 1.5GiB or 900MiB.

    Args:
        option: Where the text came from, for the message.
        text: A number and one of KiB, MiB, GiB, TiB.

    Raises:
        ConfigError: It is no such size, or zero.
    """
    found = _SIZE_PATTERN.fullmatch(text.strip())
    size_bytes = 0 if found is None else int(float(found[1]) * _SIZE_UNITS[found[2].lower()])
    if size_bytes < 1:
        raise ConfigError(f"{option} {text!r} is not a size; write it like 2GiB or 900MiB")
    return size_bytes


def _positive(variable: str, default: float) -> float:
    text = os.environ.get(variable) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise ConfigError(f"{variable} is {text!r}; a positive number was expected")
    return value


def checked_name(kind: str, name: str) -> str:
    """Return a project's or run's name if it can safely be part of an object key.

    Args:
        kind: What is named, for the message ("run", "project").
        name: The name.

    Raises:
        ConfigError: The name has other characters than letters, digits, '.', '_' and '-', does
            not begin with a letter or digit, or is longer than 100.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise ConfigError(
            f"{kind} name {name!r} is not usable: use 1 to 100 letters, digits, '.', '_' or '-', "
            "beginning with a letter or digit"
        )
    return name


def checked_threads(workers: int, threads: int | None) -> int:
    """Threads of each worker, where none are given: the machine's cores shared evenly.

    Raises:
        ConfigError: A number is below 1.
    """
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, not {workers}")
    if threads is not None and threads < 1:
        raise ConfigError(f"threads must be at least 1, not {threads}")
    return threads or max(1, cores() // workers)
