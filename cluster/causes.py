"""What an error that Ray hands over was caused by.

Ray knows of processes and machines, the family of `zkml_ray.errors` of proving and stores. Both are
read here, once, as a `Cause` and a line for people; a death that may be the machine's is judged by
the pool, which asks the machine.
"""

from __future__ import annotations

from ray.exceptions import (
    ActorUnavailableError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
)

from zkml_ray import errors
from zkml_ray.cluster.messages import Cause
from zkml_ray.errors import ConfigError, StageError, StoreError, StoreUnavailableError, ZkmlRayError


def raised(error: BaseException) -> tuple[Cause, str, ZkmlRayError | None]:
    """What a worker that lives reported.

    Args:
        error: What its method raised.

    Returns:
        The cause, a line, and the error itself where it is one of our family.
    """
    found = error
    if isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        found = error.cause
    own = found if isinstance(found, ZkmlRayError) else None
    return _cause(found), _line(found), own


def died(error: RayError) -> tuple[Cause, str]:
    """What ended a worker, as far as Ray tells.

    Returns:
        The cause, and what became of the worker: "died", say.
    """
    if isinstance(error, OutOfMemoryError):
        return Cause.MEMORY, "was ended for lack of memory"
    if isinstance(error, NodeDiedError):
        return Cause.MACHINE, "was lost with its machine"
    if isinstance(error, ActorUnavailableError):
        return Cause.STOPPED, "cannot be reached any more"
    return Cause.PROCESS, "died"


def not_started(error: BaseException) -> tuple[Cause, str]:
    """Why a worker did not come up."""
    if isinstance(error, RayTaskError):
        cause, line, _ = raised(error)
        # A worker that cannot even open its store will not prove; whose fault it is, it says.
        return (cause if cause is not Cause.ERROR else Cause.START), line
    if isinstance(error, OutOfMemoryError):
        return Cause.MEMORY, "it was ended for lack of memory"
    if isinstance(error, RuntimeEnvSetupError):
        return Cause.CONFIGURATION, f"Ray cannot set its environment up: {_line(error)}"
    if isinstance(error, RayActorError):
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # Of an error while it was made Ray shows the trace back, whose last line says what it was.
        return Cause.START, lines[-1] if lines and error.actor_init_failed else _line(error)
    return Cause.START, _line(error)


def _cause(error: BaseException) -> Cause:
    if isinstance(error, StoreUnavailableError):
        return Cause.STORE
    if isinstance(error, (errors.OutOfMemoryError, MemoryError)):
        return Cause.MEMORY
    if isinstance(error, ConfigError):
        return Cause.CONFIGURATION
    if isinstance(error, StoreError) or not isinstance(error, ZkmlRayError):
        return Cause.ERROR
    if isinstance(error, StageError) and error.retryable:
        return Cause.ERROR
    return Cause.FINAL


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
