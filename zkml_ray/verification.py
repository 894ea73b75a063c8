"""The Python API of verification. Imports neither Ray nor any proving stage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from zkml_ray.config import default_store_url
from zkml_ray.errors import ConfigError
from zkml_ray.scratch import scratch_folder
from zkml_ray.stores import ArtifactStore, open_store
from zkml_ray.stores.layout import RunLayout
from zkml_ray.verifying.bundle import open_run
from zkml_ray.verifying.limited import verify_limited
from zkml_ray.verifying.policy import VerifierPolicy
from zkml_ray.verifying.trust import TrustRoot
from zkml_ray.verifying.verifier import Measure, Verdict, verify_run

if TYPE_CHECKING:
    from zkml_ray.chunking.given import ModelLike

DEFAULT_PROJECT = "default"


def verify(
    run: str | Path,
    *,
    store: str | Path | ArtifactStore | None = None,
    project: str = DEFAULT_PROJECT,
    model: ModelLike | None = None,
    plan_digest: str | None = None,
    allow_insecure_srs: bool = False,
    policy: VerifierPolicy | None = None,
    measure: Measure | None = None,
    example_inputs: object = None,
    max_seconds: float | None = None,
    max_memory_bytes: int | None = None,
) -> Verdict:
    """Verify a stored run, trusting only the model file or a plan digest.

    Args:
        run: Its id, or the path of its bundle.
        store: Folder, URL or an opened store; default: ZKML_RAY_STORE or ./zkml-ray-store.
            Not with a bundle.
        project: Project in the store.
        model: Your copy of the ONNX file, its bytes or a parsed onnx.ModelProto: circuits and
            verifying keys are re-built from it. A torch.nn.Module or a scikit-learn estimator is
            exported again, which gives the same bytes with the same versions alone.
        plan_digest: Digest of a sealed plan that someone you trust re-built.
        allow_insecure_srs: Accept a generated SRS, with which its maker can forge.
        policy: How coarse a plan may be; default: `VerifierPolicy()` with a model, whose plan the
            prover chose, and no floors with a plan digest, whose author chose.
        measure: Sample inputs (`zkml_ray.SampleInputs`) on which the plan's quantised model is
            compared with yours; the verdict says what was found. With a model alone.
        example_inputs: With a torch.nn.Module or an estimator as model, what it was exported with:
            arrays of the shapes that were proved.
        max_seconds: Longest time that verifying may take; with it, or with a limit of memory, it
            is done in a process of its own that is ended when it takes more.
        max_memory_bytes: Most memory of each process that verifies.

    Returns:
        The verdict (`ok` is True; a run that does not verify raises).

    Raises:
        VerificationError: The run is not what it claims to be, or verifying it takes more than was
            allowed.
        ConfigError: There is no such run, or not exactly one trust root is given.
        StoreError: The store cannot be read.
    """
    loaded = None
    if model is not None:
        from zkml_ray.chunking.given import is_file, take_model  # onnx; a digest does without

        if max_seconds is None and max_memory_bytes is None:
            loaded = take_model(model, example_inputs)
        elif not is_file(model):
            with scratch_folder() as folder:
                path = folder / "model.onnx"
                path.write_bytes(take_model(model, example_inputs).data)
                return verify(
                    run,
                    store=store,
                    project=project,
                    model=path,
                    plan_digest=plan_digest,
                    allow_insecure_srs=allow_insecure_srs,
                    policy=policy,
                    measure=measure,
                    max_seconds=max_seconds,
                    max_memory_bytes=max_memory_bytes,
                )
    if max_seconds is not None or max_memory_bytes is not None:
        roots = {
            "store": store,
            "project": project,
            "model": None if model is None else str(model),
            "plan-digest": plan_digest,
        }
        arguments = _arguments(str(run), roots, allow_insecure_srs, policy, measure)
        return verify_limited(arguments, max_seconds=max_seconds, max_memory_bytes=max_memory_bytes)
    trust = TrustRoot(model=loaded, plan_digest=plan_digest)
    if isinstance(store, ArtifactStore):
        opened, layout = store, RunLayout(project, str(run))
    else:
        named = None if store is None else str(store)
        opened, layout = open_run(str(run), store=named, project=project)
    return verify_run(
        opened,
        layout,
        trust,
        allow_insecure_srs=allow_insecure_srs,
        policy=policy,
        measure=measure,
    )


def _arguments(
    run: str,
    named: Mapping[str, str | Path | ArtifactStore | None],
    allow_insecure_srs: bool,
    policy: VerifierPolicy | None,
    measure: Measure | None,
) -> list[str]:
    """A call of `verify` as arguments of the command.

    Raises:
        ConfigError: The store or the measurement cannot be named to another process.
    """
    given = []
    for option, value in named.items():
        if isinstance(value, ArtifactStore):
            open_store(value.url)  # says what is wrong with one that only this process has
            value = value.url
        given += [] if value is None else [f"--{option}={value}"]
    given += ["--allow-insecure-srs"] if allow_insecure_srs else []
    if policy is not None:
        given += [f"--{name.replace('_', '-')}={value}" for name, value in policy.as_json().items()]
    if measure is not None:
        if not isinstance(measure, Named):
            raise ConfigError(
                "with a limit of seconds or memory, measure must be zkml_ray.SampleInputs: a "
                "function cannot be named to another process"
            )
        given += measure.arguments()
    return [*given, "--", run]


@runtime_checkable
class Named(Protocol):
    """What can be said as arguments of the command."""

    def arguments(self) -> list[str]:
        """The arguments."""


def opened_store(store: str | Path | ArtifactStore | None) -> ArtifactStore:
    """The store that a caller named, or the default one."""
    if isinstance(store, ArtifactStore):
        return store
    return open_store(str(store) if store is not None else default_store_url())
