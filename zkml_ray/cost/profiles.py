"""Finding a machine's profile: the one asked for, this machine's, or the shipped one."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from zkml_ray.config import cache_dir
from zkml_ray.errors import ConfigError
from zkml_ray.schema.profile import Profile

_SHIPPED = "default_profile.json"


def machine_profile_path() -> Path:
    """Where `zkml-ray calibrate` saves this machine's profile."""
    return cache_dir() / "profile.json"


def load_profile(path: Path | None = None) -> Profile:
    """The profile that predictions use.

    Args:
        path: A profile's file. Default: ZKML_RAY_PROFILE, else this machine's own if it was
            calibrated, else the shipped one. "shipped" names the last.

    Raises:
        ConfigError: There is no such file.
        ManifestError: It is not a profile.
    """
    configured = os.environ.get("ZKML_RAY_PROFILE")
    if path is None and configured:
        path = Path(configured)
    if path is None and machine_profile_path().is_file():
        path = machine_profile_path()
    if path is None or str(path) == "shipped":
        return shipped_profile()
    path = path.expanduser()
    if not path.is_file():
        raise ConfigError(
            f"no such profile: {path}; make one with: zkml-ray calibrate --out {path}"
        )
    return Profile.parse(path.read_bytes(), what=f"profile {path}")


def shipped_profile() -> Profile:
    """The profile that comes with the package, measured on a machine that it names."""
    data = resources.files(__package__).joinpath(_SHIPPED).read_bytes()
    return Profile.parse(data, what="the shipped profile")


def save_profile(profile: Profile, path: Path | None = None) -> Path:
    """Save a profile: for this machine, or at a path."""
    path = path or machine_profile_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_bytes(profile.to_bytes())
    temporary.replace(path)
    return path
