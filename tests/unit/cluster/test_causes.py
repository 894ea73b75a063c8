"""What errors that Ray hands over are taken for."""

from __future__ import annotations

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
)

from tests.unit.test_errors import FAMILY
from zkml_ray import errors
from zkml_ray.circuits.backend import BackendError
from zkml_ray.cluster import causes
from zkml_ray.cluster.messages import Cause

RAISED = {
    errors.StoreUnavailableError("no answer"): Cause.STORE,
    errors.ArtifactNotFoundError("not there"): Cause.ERROR,
    errors.DigestMismatchError("damaged"): Cause.ERROR,
    errors.StoreError("refused"): Cause.ERROR,
    errors.OutOfMemoryError("ended"): Cause.MEMORY,
    MemoryError("no room"): Cause.MEMORY,
    errors.ConfigError("set it"): Cause.CONFIGURATION,
    BackendError("the circuit is wrong"): Cause.FINAL,
    errors.RangeExceededError("too large"): Cause.FINAL,
    errors.StageError("once more", retryable=True): Cause.ERROR,
    ZeroDivisionError("a defect"): Cause.ERROR,
}


def task_error(cause: Exception) -> RayTaskError:
    return RayTaskError("prove", "a trace back", cause)


@pytest.mark.parametrize("error", RAISED, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("in_ray", [False, True])
def test_what_a_worker_raised_has_its_own_cause_and_words(error: Exception, in_ray: bool) -> None:
    cause, line, own = causes.raised(task_error(error) if in_ray else error)
    assert (cause, line) == (RAISED[error], str(error))
    assert own is (error if isinstance(error, errors.ZkmlRayError) else None)


@pytest.mark.parametrize("cls", FAMILY, ids=lambda cls: cls.__name__)
def test_every_error_of_the_family_has_a_cause_that_is_a_workers(cls: type[Exception]) -> None:
    cause, line, _ = causes.raised(cls("why\nand more"))
    assert cause in {Cause.STORE, Cause.ERROR, Cause.MEMORY, Cause.CONFIGURATION, Cause.FINAL}
    assert line == "why"


def test_an_error_without_words_is_called_by_its_type() -> None:
    assert causes.raised(ZeroDivisionError())[1] == "ZeroDivisionError"


DEATHS: dict[RayError, Cause] = {
    ActorDiedError(): Cause.PROCESS,
    ActorUnavailableError("gone", b"0" * 16): Cause.STOPPED,
    NodeDiedError("the node"): Cause.MACHINE,
    OutOfMemoryError("low"): Cause.MEMORY,
}


@pytest.mark.parametrize("error", DEATHS, ids=lambda e: type(e).__name__)
def test_deaths_are_told_apart_and_only_one_speaks_of_memory(error: RayError) -> None:
    cause, became = causes.died(error)
    assert cause is DEATHS[error]
    assert ("memory" in became) == (cause is Cause.MEMORY)


def test_why_a_worker_did_not_come_up() -> None:
    assert causes.not_started(task_error(errors.ConfigError("no credentials"))) == (
        Cause.CONFIGURATION,
        "no credentials",
    )
    assert causes.not_started(RuntimeEnvSetupError("no agent"))[0] is Cause.CONFIGURATION
    assert causes.not_started(OutOfMemoryError("low"))[0] is Cause.MEMORY
    assert causes.not_started(ActorDiedError())[0] is Cause.START
    made = ActorDiedError(task_error(ModuleNotFoundError("No module named 'zkml_ray'")))
    cause, line = causes.not_started(made)
    assert cause is Cause.START
    assert "a trace back" in line
