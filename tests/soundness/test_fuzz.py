"""Parsers under fuzz: whatever comes in, only a refusal comes out.

`fuzz` mutates honest documents (bytes and values), which reaches deeper than random bytes do. The
default tier runs a few hundred inputs, the slow tier ten thousand.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zkml_ray import names
from zkml_ray.api import Run
from zkml_ray.canonical import canonical_json, sha256_hex
from zkml_ray.chunking.load import LoadedModel
from zkml_ray.chunking.rewrite import PASSES
from zkml_ray.commitments.opening import parse_opening
from zkml_ray.errors import ManifestError, OpeningError, VerificationError
from zkml_ray.schema.document import MAX_DEPTH, check_bounds
from zkml_ray.schema.manifest import Manifest
from zkml_ray.schema.plan import SealedPlan
from zkml_ray.schema.proof import ChunkProof
from zkml_ray.verifying.bundle import BundleStore, write_bundle
from zkml_ray.verifying.openings import check_opening, open_activation
from zkml_ray.verifying.trust import HINTED_REWRITES, TrustRoot
from zkml_ray.verifying.verifier import Verdict, verify_run

from .attacker import Attacker
from .fields import look, set_at

pytestmark = pytest.mark.ray

FEW = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
GUIDED_RUNS = 20_000
MANY = settings(FEW, max_examples=2500, derandomize=False)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(1 << 300), max_value=1 << 300),
    st.floats(),
    st.text(max_size=70),
    st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    st.sampled_from(["chunk-000", "chunk-001", "x", "y", "h0", "ceremony", "\ud800", "9" * 5000]),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner)
)


def every_place(document: Any, place: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [place] if place else []
    items: Any = ()
    if isinstance(document, dict):
        items = document.items()
    elif isinstance(document, list):
        items = enumerate(document)
    for key, value in items:
        found += every_place(value, (*place, key))
    return found


def spelled(document: Any) -> bytes:
    """Canonical JSON where there is one, else some JSON."""
    try:
        return canonical_json(document)
    except ValueError:
        return json.dumps(document).encode("utf-8", "surrogatepass")


@st.composite
def damaged_bytes(draw: st.DrawFn, honest: bytes) -> bytes:
    """A document with bytes changed, or with one value replaced by anything."""
    if draw(st.booleans()):
        data = bytearray(honest)
        for _ in range(draw(st.integers(1, 4))):
            start = draw(st.integers(0, len(data)))
            end = draw(st.integers(start, min(len(data), start + 40)))
            data[start:end] = draw(st.binary(max_size=40))
        return bytes(data)
    document = json.loads(honest)
    place = draw(st.sampled_from(every_place(document)))
    old = look(document, place)
    near = st.just(old + 1) if isinstance(old, int) else st.just(old)
    return spelled(set_at(document, place, draw(VALUES | near)))


def only_refused(verify: Callable[[], Verdict], honest: Verdict) -> None:
    """It is refused, or holds and says no more than the honest run. Nothing else may leave.

    To reveal less is no lie: the verdict then names what is committed to and not shown.
    """
    try:
        verdict = verify()
    except VerificationError as error:
        assert error.code != "malformed", error
        return
    assert verdict.plan_digest == honest.plan_digest
    assert verdict.revealed.items() <= honest.revealed.items()
    assert {*verdict.hidden, *verdict.revealed} == {*honest.hidden, *honest.revealed}


@pytest.fixture(scope="module")
def bundle(honest: Attacker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "mlp.zip"
    honest.reset()
    write_bundle(honest.store, honest.layout, path)
    return path


@pytest.fixture(params=[FEW, pytest.param(MANY, marks=pytest.mark.slow)], ids=["few", "many"])
def effort(request: pytest.FixtureRequest) -> settings:
    chosen: settings = request.param
    return chosen


def test_fuzzed_manifest_is_only_ever_refused(attacker: Attacker, effort: settings) -> None:
    honest = attacker.verify()
    data = canonical_json(attacker.manifest)

    @effort
    @given(damaged_bytes(data))
    def check(changed: bytes) -> None:
        attacker.store.put(attacker.layout.manifest, changed)
        only_refused(attacker.verify_stored, honest)

    check()


def test_fuzzed_sealed_plan_is_only_ever_refused(attacker: Attacker, effort: settings) -> None:
    """The trust root is the fuzzed plan's own digest: every check behind it is reached."""
    honest = attacker.verify()
    data = attacker.read(names.SEALED_PLAN)

    @effort
    @given(damaged_bytes(data))
    def check(changed: bytes) -> None:
        attacker.reset()
        attacker.replace(names.SEALED_PLAN, changed)
        digest = sha256_hex(changed)
        attacker.manifest["plan_sha256"] = digest
        attacker.manifest["statement"]["plan_sha256"] = digest
        try:
            verdict = attacker.verify(TrustRoot(plan_digest=digest))
        except VerificationError as error:
            assert error.code != "malformed", error
            return
        # A plan that differs where neither proofs nor commitments depend on it (a count of rows).
        assert verdict.revealed == honest.revealed

    check()


DEAR = pytest.mark.parametrize(
    "effort",
    [settings(FEW, max_examples=25), pytest.param(MANY, marks=pytest.mark.slow)],
    ids=["few", "many"],
)


@DEAR
def test_rewrites_that_a_stranger_asks_for_are_refused_by_the_model(
    attacker: Attacker, mlp_model: LoadedModel, effort: settings
) -> None:
    """Those of hinted plans are applied to the verifier's own model, the others are refused."""
    sealed = attacker.document(names.SEALED_PLAN)
    nodes = [node for chunk in sealed["plan"]["chunks"] for node in chunk["nodes"]]
    step = st.fixed_dictionaries(
        {
            "name": st.sampled_from([*PASSES, "nothing"]) | st.sampled_from([*HINTED_REWRITES]),
            "node": st.sampled_from([*nodes, "nowhere"]),
            "parameter": st.integers(0, 9) | st.integers(0, 1 << 20),
        }
    )

    @effort
    @given(st.lists(step, min_size=1, max_size=3))
    def check(rewrites: list[dict[str, Any]]) -> None:
        attacker.reset()
        attacker.replace_plan(set_at(sealed, ("plan", "rewrites"), rewrites))
        with pytest.raises(VerificationError) as refused:
            attacker.verify(TrustRoot(model=mlp_model))
        foreign = {step["name"] for step in rewrites} - HINTED_REWRITES
        repeated = len({(step["name"], step["node"]) for step in rewrites}) < len(rewrites)
        expected = "plan-arguments" if foreign else "model-circuits"
        assert refused.value.code == ("plan-extent" if repeated else expected)

    check()


@DEAR
def test_fuzzed_sealed_plan_is_refused_by_the_model(
    attacker: Attacker, mlp_model: LoadedModel, effort: settings
) -> None:
    """The manifest agrees with the fuzzed plan, whose circuits are then derived from the model."""
    sealed = attacker.document(names.SEALED_PLAN)
    trust = TrustRoot(model=mlp_model)

    @effort
    @given(st.sampled_from(every_place(sealed)), st.data())
    def check(place: tuple[str | int, ...], draws: st.DataObject) -> None:
        attacker.reset()
        old = look(sealed, place)
        near = st.just(old + 1) if isinstance(old, int) else st.just(old)
        document = set_at(sealed, place, draws.draw(VALUES | near))
        try:
            attacker.replace_plan(document)
        except ValueError:
            return  # no JSON
        try:
            attacker.verify(trust)
        except VerificationError as error:
            assert error.code != "malformed", error
            return
        # A plan that asks for the same circuits in other words: leaves of at most 129 slots, say,
        # where slots come in packs of eight.
        document["plan"]["commitment"] = sealed["plan"]["commitment"]
        assert canonical_json(document) == canonical_json(sealed)

    check()


def test_fuzzed_proof_is_only_ever_refused(attacker: Attacker, effort: settings) -> None:
    honest = attacker.verify()
    data = attacker.read(names.proof("chunk-000"))

    @effort
    @given(damaged_bytes(data))
    def check(changed: bytes) -> None:
        attacker.reset()
        attacker.replace(names.proof("chunk-000"), changed)
        only_refused(attacker.verify, honest)

    check()


def test_fuzzed_bundle_is_only_ever_refused(
    bundle: Path, mlp_run: Run, effort: settings, tmp_path: Path
) -> None:
    data = bundle.read_bytes()
    trust = TrustRoot(plan_digest=mlp_run.plan_digest)
    path = tmp_path / "fuzzed.zip"

    def verify() -> Verdict:
        store = BundleStore(path)
        return verify_run(store, store.layout, trust, allow_insecure_srs=True)

    @effort
    @given(st.data())
    def check(draws: st.DataObject) -> None:
        changed = bytearray(data)
        for _ in range(draws.draw(st.integers(1, 6))):
            # Half of the changes in the directory, which is where parsers are led astray.
            low = draws.draw(st.sampled_from([0, len(data) - 2200]))
            start = draws.draw(st.integers(low, len(changed) - 1))
            new = draws.draw(st.binary(min_size=1, max_size=8))
            changed[start : start + len(new)] = new
        path.write_bytes(changed)
        only_refused(verify, mlp_run.verdict)

    check()


def test_fuzzed_opening_is_only_ever_refused(attacker: Attacker, effort: settings) -> None:
    manifest = attacker.run.manifest
    opening = open_activation(attacker.store, attacker.layout, boundary="h1", index=0)
    honest = check_opening(opening, manifest)

    @effort
    @given(damaged_bytes(opening.model_dump_json().encode()))
    def check(changed: bytes) -> None:
        try:
            shown = check_opening(changed, manifest)
        except OpeningError:
            return
        assert shown == honest

    check()


@pytest.mark.parametrize("schema", [Manifest, SealedPlan, ChunkProof])
def test_parsers_given_anything_raise_only_their_own_error(
    schema: type[Any], effort: settings
) -> None:
    @effort
    @given(st.binary(max_size=300) | VALUES.map(spelled))
    def check(data: bytes) -> None:
        with pytest.raises(ManifestError):
            schema.parse_canonical(data, what="document")

    check()


@pytest.mark.slow
def test_fuzzing_guided_by_coverage_finds_nothing_but_refusals(
    bundle: Path, mlp_run: Run, repository: Path, tmp_path: Path
) -> None:
    pytest.importorskip("atheris", reason="atheris has wheels for Linux on x86-64 alone")
    target = repository / "tests" / "soundness" / "fuzz_target.py"
    (tmp_path / "corpus").mkdir()
    options = [f"-runs={GUIDED_RUNS}", "-max_len=65536", "-seed=7", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(
        [sys.executable, target, bundle, mlp_run.plan_digest, tmp_path / "corpus", *options],
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    shown = done.stdout + done.stderr
    assert done.returncode == 0, shown[-4000:]
    assert f"Done {GUIDED_RUNS} runs" in shown, shown[-4000:]


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'"' + b'\\"' * 1_000_000,
        b'["' * 200_000,
        b"[" + b"1," * (5 << 20) + b"1]",
        b"9" * 1_000_000,
        b"-" * 1000,
        b"\xff\xfe",
        b'{"format": "zkml_ray/manifest/1"' + b',"a":1' * 1000 + b"}",
        b"NaN",
        b"1e999999",
    ],
    ids=lambda data: data[:6].decode("latin-1") + str(len(data)),
)
def test_hostile_json_is_refused_fast(data: bytes) -> None:
    for schema in (Manifest, SealedPlan, ChunkProof):
        with pytest.raises(ManifestError):
            schema.parse_canonical(data, what="document")
    with pytest.raises(OpeningError):
        parse_opening(data)


def test_limits_stand_before_the_parser() -> None:
    with pytest.raises(ManifestError, match="at most 10 are read"):
        check_bounds(b"[" * 11, what="it", max_bytes=10)
    with pytest.raises(ManifestError, match="levels deep"):
        check_bounds(b"[" * (MAX_DEPTH + 1), what="it", max_bytes=100)
    with pytest.raises(ManifestError, match="values"):
        check_bounds(b"," * (5 << 20), what="it", max_bytes=1 << 30)
    brackets_in_a_string = json.dumps(["[" * 1000, '\\"[[[[[[[[[[[[[[[[[']).encode()
    check_bounds(brackets_in_a_string, what="it", max_bytes=1 << 20)


def test_no_module_on_a_reading_path_knows_pickle(repository: Path) -> None:
    verifying = list((repository / "zkml_ray" / "verifying").glob("*.py"))
    assert len(verifying) > 8
    for path in verifying:
        assert "pickle" not in path.read_text()
    for folder in ("schema", "stores"):
        for path in (repository / "zkml_ray" / folder).glob("*.py"):
            assert "import pickle" not in path.read_text()
            assert "allow_pickle=True" not in path.read_text()
