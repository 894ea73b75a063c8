"""The one error family of zkml_ray.

Every failure a caller may meet is a subclass of `ZkmlRayError`. A message says what was wrong,
what was expected and what to do. The errors travel through Ray, so each survives pickling with
its attributes: constructors take the message first and every other argument by keyword with a
default.

Exit codes of the command line live here too, because they are part of an error's meaning.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """Exit codes of `zkml-ray` (a public contract)."""

    OK = 0
    VERIFICATION_FAILED = 1
    BAD_INPUT = 2
    INFRASTRUCTURE = 3
    UNSUPPORTED_MODEL = 4
    INACCURATE = 5


def _rebuild(cls: type[ZkmlRayError], message: str, state: dict[str, Any]) -> ZkmlRayError:
    error = cls(message)
    error.__dict__.update(state)
    return error


NO_MEMORY = "there is not enough memory for this"
"""What the command line says where an allocation failed."""


class ZkmlRayError(Exception):
    """Root of the family."""

    exit_code: ExitCode = ExitCode.INFRASTRUCTURE

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, dict(self.__dict__))


class InsecureSrsWarning(UserWarning):
    """A run rests on an SRS that was generated: whoever kept its secret can forge proofs."""


class ConfigError(ZkmlRayError):
    """An option, an environment variable or a user's input is wrong."""

    exit_code = ExitCode.BAD_INPUT


class InputError(ConfigError):
    """The model's input data does not fit the model: shape, dtype, range or file format."""


class FieldRangeError(ZkmlRayError):
    """A value does not fit where it must be encoded (field element, packed element, salt)."""

    exit_code = ExitCode.BAD_INPUT


class ManifestError(ZkmlRayError):
    """A manifest, plan or proof document does not have the form its schema gives it."""

    exit_code = ExitCode.BAD_INPUT


class ChunkingError(ZkmlRayError):
    """The model cannot be turned into chunks."""

    exit_code = ExitCode.UNSUPPORTED_MODEL


class ModelFormatError(ChunkingError):
    """The file is not a valid ONNX model."""

    exit_code = ExitCode.BAD_INPUT


class DynamicShapeError(ChunkingError):
    """A dimension of the model is symbolic and no value was given for it."""

    exit_code = ExitCode.BAD_INPUT


class UnsupportedOperatorError(ChunkingError):
    """The model uses an operator that the proving backend cannot express."""


class AccuracyError(ZkmlRayError):
    """The quantised model's outputs are further from the float model's than is accepted.

    Attributes:
        output: The first such output.
        max_abs_error: Its largest difference; None where it cannot be told as a number.
        tolerance: The largest difference that was accepted.
    """

    exit_code = ExitCode.INACCURATE

    def __init__(
        self,
        message: str,
        *,
        output: str = "",
        max_abs_error: float | None = None,
        tolerance: float | None = None,
    ) -> None:
        super().__init__(message)
        self.output = output
        self.max_abs_error = max_abs_error
        self.tolerance = tolerance


class StageError(ZkmlRayError):
    """A stage of the pipeline failed.

    Attributes:
        stage: The stage's verb: plan, setup, witness, prove, link, store or verify.
        chunk_id: The chunk it failed on, or None when it concerns the whole run.
        retryable: Whether running the same thing again may succeed.
    """

    def __init__(
        self,
        message: str,
        *,
        stage: str = "",
        chunk_id: str | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.stage = stage
        self.chunk_id = chunk_id
        self.retryable = retryable


class OutOfMemoryError(ZkmlRayError):
    """A process that was started for a task was ended for want of memory."""


class RangeExceededError(StageError):
    """An activation left the range that the circuit's decomposition can express."""

    exit_code = ExitCode.BAD_INPUT


class StoreError(ZkmlRayError):
    """The artifact store could not do what was asked."""


class StoreUnavailableError(StoreError):
    """The store gave no usable answer within the deadline; the same may succeed later."""


class ArtifactNotFoundError(StoreError):
    """The store has no object under this key."""


class ObjectTooLargeError(StoreError):
    """The object is larger than its reader allows."""


class RunExistsError(StoreError):
    """A run of this id is already stored; runs are never overwritten."""

    exit_code = ExitCode.BAD_INPUT


class DigestMismatchError(StoreError):
    """Bytes read from a store or cache do not have the SHA-256 they were recorded with."""

    def __init__(self, message: str, *, expected: str = "", got: str = "") -> None:
        super().__init__(message)
        self.expected = expected
        self.got = got


class VerificationError(ZkmlRayError):
    """The run is not what it claims to be.

    Attributes:
        expected: What the verifier computed or was told to expect.
        got: What the run shows.
        subject: The chunk, boundary or document concerned.
        code: A stable name of what was wrong, for programs; docs/security.md lists them.
    """

    exit_code = ExitCode.VERIFICATION_FAILED
    default_code = "invalid"

    def __init__(
        self,
        message: str,
        *,
        expected: str = "",
        got: str = "",
        subject: str = "",
        code: str = "",
    ) -> None:
        super().__init__(message)
        self.expected = expected
        self.got = got
        self.subject = subject
        self.code = code or self.default_code


class ProofRejectedError(VerificationError):
    """A chunk's proof does not verify under the key that the plan pins for it."""

    default_code = "proof-rejected"


class BoundaryMismatchError(VerificationError):
    """Producer and consumer of a boundary show different commitments."""

    default_code = "boundary-mismatch"


class StatementError(VerificationError):
    """The revealed values do not open the commitments that the proofs expose."""

    default_code = "statement-values"


class TrustRootError(VerificationError):
    """The plan is not the one that the verifier's trust root names."""

    default_code = "plan-digest"


class InsecureSrsError(VerificationError):
    """The run rests on an SRS that its maker can forge with, and this was not allowed."""

    default_code = "srs-insecure"


class LimitExceededError(VerificationError):
    """The verification took more than it was allowed: nothing is known of the run."""

    default_code = "limit-seconds"


def out_of_memory(doing: str) -> LimitExceededError:
    """The refusal of what takes more memory than there is, or than was allowed.

    Args:
        doing: What was done.
    """
    return LimitExceededError(
        f"not verified: memory ran out while {doing}; allow more (--max-memory) if you trust the "
        "run's maker not to waste it",
        code="limit-memory",
    )


class OpeningError(VerificationError):
    """An opening does not lead to the boundary commitment it claims to open."""

    default_code = "opening"
