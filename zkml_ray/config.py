"""Where things lie on this machine, and the environment variables that say so.

| variable | meaning | default |
|---|---|---|
| ZKML_RAY_CACHE | this machine's keys, circuits and SRS files | ~/.cache/zkml_ray |
| ZKML_RAY_STORE | the store that commands use without --store | ./zkml-ray-store |
| ZKML_RAY_SRS_DIR | ceremony SRS files, kzg<logrows>.srs | none: an insecure SRS is generated |
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from zkml_ray.errors import ConfigError

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
