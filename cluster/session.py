"""Starting or joining Ray.

A cluster is joined when RAY_ADDRESS is set (as `ray job submit` does) or an address is given;
otherwise a private one is started on this machine and stopped at the end.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from zkml_ray.errors import ZkmlRayError
from zkml_ray.interrupts import kept_handlers


class ClusterError(ZkmlRayError):
    """Ray could not be started or joined, or lost what it needs to go on."""


@contextmanager
def ray_session(
    *, cpus: int, address: str | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Have Ray for the duration of a block.

    Args:
        cpus: CPUs that a private cluster offers; at least what the workers reserve together.
        address: A running cluster's address; default: RAY_ADDRESS, else a private cluster.
        environment: Variables of a private cluster's workers. Given like this, and not as a
            `runtime_env`, they let Ray have worker processes ready (a second sooner).

    Raises:
        ClusterError: Ray could not be started or joined.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    address = joined_address(address)
    try:
        added = {} if address else environment or {}
        with warnings.catch_warnings(), _variables(added), kept_handlers():
            warnings.simplefilter("ignore")
            logging.getLogger("ray").setLevel(logging.ERROR)
            if address:
                ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
            else:
                ray.init(
                    address="local",  # or Ray would join a cluster that `ray start` left here
                    num_cpus=cpus,
                    include_dashboard=False,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                    configure_logging=False,
                )
    except Exception as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        where = f"at {address}" if address else "on this machine"
        raise ClusterError(f"Ray cannot be used {where}: {line}") from None
    _keep_stdout_clean()
    try:
        yield
    finally:
        ray.shutdown()


def _keep_stdout_clean() -> None:
    """Let Ray's own messages go to stderr: stdout holds results, with --json one object.

    Whatever its log settings, Ray prints errors of raylets, such as a machine's loss, to stdout.
    """
    import ray._private.worker as internals

    printed = internals.print_to_stdstream
    if getattr(printed, "to_stderr", False):
        return

    def print_to_stderr(data: dict[str, Any], ignore_prefix: bool) -> None:
        printed({**data, "is_err": True}, ignore_prefix=ignore_prefix)

    print_to_stderr.to_stderr = True  # type: ignore[attr-defined]
    internals.print_to_stdstream = print_to_stderr


def joined_address(address: str | None) -> str | None:
    """The address of the cluster that is joined; None where a private one is started."""
    return address or os.environ.get("RAY_ADDRESS") or None


def is_private(address: str | None) -> bool:
    """Whether `ray_session` starts a cluster of its own."""
    import ray

    return not ray.is_initialized() and joined_address(address) is None


@contextmanager
def _variables(added: Mapping[str, str]) -> Iterator[None]:
    """Have environment variables for the duration of a block."""
    former = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
