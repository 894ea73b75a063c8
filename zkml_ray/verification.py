"""The Python API of verification. Imports neither Ray nor any proving stage."""

from __future__ import annotations

from pathlib import Path

from zkml_ray.config import default_store_url
from zkml_ray.stores import ArtifactStore, open_store
from zkml_ray.stores.layout import RunLayout
from zkml_ray.verifying.bundle import open_run
from zkml_ray.verifying.policy import VerifierPolicy
from zkml_ray.verifying.trust import TrustRoot
from zkml_ray.verifying.verifier import Measure, Verdict, verify_run

DEFAULT_PROJECT = "default"


def verify(
    run: str | Path,
    *,
    store: str | Path | ArtifactStore | None = None,
    project: str = DEFAULT_PROJECT,
    model: str | Path | None = None,
    plan_digest: str | None = None,
    allow_insecure_srs: bool = False,
    policy: VerifierPolicy | None = None,
    measure: Measure | None = None,
) -> Verdict:
    """Verify a stored run, trusting only the model file or a plan digest.

    Args:
        run: Its id, or the path of its bundle.
        store: Folder, URL or an opened store; default: ZKML_RAY_STORE or ./zkml-ray-store.
            Not with a bundle.
        project: Project in the store.
        model: Your copy of the ONNX file: circuits and verifying keys are re-built from it.
        plan_digest: Digest of a sealed plan that someone you trust re-built.
        allow_insecure_srs: Accept a generated SRS, with which its maker can forge.
        policy: How coarse a plan may be; default: `VerifierPolicy()` with a model, whose plan the
            prover chose, and no floors with a plan digest, whose author chose.
        measure: Sample inputs (`zkml_ray.SampleInputs`) on which the plan's quantised model is
            compared with yours; the verdict says what was found. With a model alone.

    Returns:
        The verdict (`ok` is True; a run that does not verify raises).

    Raises:
        VerificationError: The run is not what it claims to be.
        ConfigError: There is no such run, or not exactly one trust root is given.
        StoreError: The store cannot be read.
    """
    loaded = None
    if model is not None:
        from zkml_ray.chunking.load import load_model  # onnx; a plan digest does without

        loaded = load_model(Path(model))
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


def opened_store(store: str | Path | ArtifactStore | None) -> ArtifactStore:
    """The store that a caller named, or the default one."""
    if isinstance(store, ArtifactStore):
        return store
    return open_store(str(store) if store is not None else default_store_url())
