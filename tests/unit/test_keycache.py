"""The key cache on real circuits: found again, never believed when changed, made once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from zkml_ray.canonical import file_sha256
from zkml_ray.chunking.load import load_model
from zkml_ray.circuits.derive import CircuitFiles
from zkml_ray.circuits.keycache import CachedCircuit, CachedKeys, KeyCache
from zkml_ray.circuits.srs import SrsFile, ensure_srs
from zkml_ray.errors import ConfigError
from zkml_ray.stages.plan import CircuitKind, PlanOptions, plan

PROCESSES = 3


@pytest.fixture(scope="module")
def files(models: Path) -> CircuitFiles:
    """The smallest circuit of the zoo."""
    circuits = plan(load_model(models / "residual.onnx"), PlanOptions(scale=7, salted=False))
    return circuits.files["chunk-000"]


@pytest.fixture(scope="module")
def srs(models: Path) -> SrsFile:
    chunk = plan(
        load_model(models / "residual.onnx"), PlanOptions(scale=7, salted=False)
    ).plan.chunks[0]
    return ensure_srs(chunk.arguments.logrows)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def circuit(root: Path, files: CircuitFiles) -> CachedCircuit:
    return KeyCache(root).circuit(files.onnx, files.settings)


def flip_a_byte(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


def test_keys_asked_for_twice_are_made_once(
    root: Path, circuit: CachedCircuit, srs: SrsFile
) -> None:
    KeyCache(root).keys(circuit, srs.path, srs.sha256)
    again = KeyCache(root).keys(circuit, srs.path, srs.sha256)
    assert not again.made
    assert again.vk_sha256 == file_sha256(again.vk)


@pytest.mark.parametrize("which", ["pk", "vk"])
def test_key_with_a_changed_byte_is_set_aside_and_made_again(
    root: Path, circuit: CachedCircuit, srs: SrsFile, which: str
) -> None:
    before = KeyCache(root).keys(circuit, srs.path, srs.sha256)
    digests = file_sha256(before.pk), file_sha256(before.vk)
    flip_a_byte(getattr(before, which))
    after = KeyCache(root).keys(circuit, srs.path, srs.sha256)
    assert after.made
    assert (file_sha256(after.pk), file_sha256(after.vk)) == digests
    aside = after.pk.parent.with_suffix(".corrupt")
    assert file_sha256(aside / getattr(before, which).name) not in digests
    assert not KeyCache(root).keys(circuit, srs.path, srs.sha256).made


@pytest.mark.parametrize("damage", ["index gone", "index cut", "index empty", "file gone"])
def test_entry_that_is_not_whole_is_made_again(
    root: Path, files: CircuitFiles, damage: str
) -> None:
    folder = KeyCache(root).circuit(files.onnx, files.settings).compiled.parent
    if damage == "index gone":
        (folder / "digests.json").unlink()
    elif damage == "index cut":
        (folder / "digests.json").write_text('{"circuit.ezkl": "')
    elif damage == "index empty":
        (folder / "digests.json").write_text("{}")
    else:
        (folder / "circuit.ezkl").unlink()
    again = KeyCache(root).circuit(files.onnx, files.settings)
    assert again.compiled.is_file()
    assert again.settings.read_bytes() == files.settings
    assert "circuit.ezkl" in (folder / "digests.json").read_text(), "it vouches for its files again"


def test_circuit_of_other_settings_is_another_entry(root: Path, files: CircuitFiles) -> None:
    first = KeyCache(root).circuit(files.onnx, files.settings)
    second = KeyCache(root).circuit(files.onnx, files.settings + b"\n")
    assert first.name != second.name
    assert first.compiled != second.compiled


MAKE = """
import sys
from pathlib import Path
from zkml_ray.canonical import file_sha256
from zkml_ray.circuits.keycache import KeyCache
root, folder, srs, sha256 = sys.argv[1:]
cache, folder = KeyCache(Path(root)), Path(folder)
circuit = cache.circuit((folder / "onnx").read_bytes(), (folder / "settings").read_bytes())
keys = cache.keys(circuit, Path(srs), sha256)
print(keys.vk_sha256, file_sha256(keys.pk))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hinted", "native"])
def test_keys_made_on_any_number_of_threads_are_the_same_bytes(
    kind: CircuitKind, digits: Path, tmp_path: Path
) -> None:
    made = plan(load_model(digits / "digits.onnx"), PlanOptions(circuits=kind))
    first = made.plan.chunks[0]
    (tmp_path / "onnx").write_bytes(made.files[first.id].onnx)
    (tmp_path / "settings").write_bytes(made.files[first.id].settings)
    srs = ensure_srs(first.arguments.logrows)
    answers = set()
    for threads in ("1", "2", "3", "8"):
        arguments = [str(tmp_path / threads), str(tmp_path), str(srs.path), srs.sha256]
        done = subprocess.run(
            [sys.executable, "-c", MAKE, *arguments],
            env={**os.environ, "RAYON_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        answers.add(done.stdout)
    assert len(answers) == 1


ASK = """
import sys
from pathlib import Path
from zkml_ray.circuits.keycache import KeyCache
root, folder, srs, sha256 = sys.argv[1:]
cache, folder = KeyCache(Path(root)), Path(folder)
circuit = cache.circuit((folder / "onnx").read_bytes(), (folder / "settings").read_bytes())
sys.stdin.readline()
keys = cache.keys(circuit, Path(srs), sha256)
print(keys.made, keys.vk_sha256)
"""


def test_keys_asked_for_by_processes_at_once_are_made_by_one(
    tmp_path: Path, files: CircuitFiles, srs: SrsFile
) -> None:
    (tmp_path / "onnx").write_bytes(files.onnx)
    (tmp_path / "settings").write_bytes(files.settings)
    cache = tmp_path / "cache"
    arguments = [str(cache), str(tmp_path), str(srs.path), srs.sha256]
    asking = [
        subprocess.Popen(
            [sys.executable, "-c", ASK, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    for process in asking:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=120)[0].split() for process in asking]
    assert [process.returncode for process in asking] == [0] * PROCESSES
    assert sorted(made for made, _ in answers) == ["False"] * (PROCESSES - 1) + ["True"]
    assert len({digest for _, digest in answers}) == 1
    folders = [path for path in (cache / "keys").iterdir() if path.is_dir()]
    assert len(folders) == 1


def keys_of(root: Path, files: CircuitFiles, srs: SrsFile, number: int, cap: int) -> CachedKeys:
    """Keys of one circuit, each number under a name of its own: its settings end otherwise."""
    cache = KeyCache(root, keys_bytes=cap)
    circuit = cache.circuit(files.onnx, files.settings + b"\n" * number)
    return cache.keys(circuit, srs.path, srs.sha256)


def test_keys_that_a_process_holds_are_not_evicted_and_leftovers_are(
    tmp_path: Path, files: CircuitFiles, srs: SrsFile
) -> None:
    held = keys_of(tmp_path, files, srs, 0, cap=1)
    assert held.pk.exists(), "alone larger than the cap, but asked for"
    leftover = tmp_path / "keys" / f".tmp-{'0' * 64}"
    leftover.mkdir()
    (leftover / "pk.key").write_bytes(bytes(1000))
    other = keys_of(tmp_path, files, srs, 1, cap=1)
    assert held.pk.exists()
    assert other.pk.exists()
    assert not leftover.exists(), "of a process that was killed"
    paths = held.pk, other.pk
    del held, other
    keys_of(tmp_path, files, srs, 2, cap=1)
    assert [path.exists() for path in paths] == [False, False]


def test_keys_used_least_recently_go_first(
    tmp_path: Path, files: CircuitFiles, srs: SrsFile
) -> None:
    first = keys_of(tmp_path, files, srs, 0, cap=1 << 30).pk
    size = sum(file.stat().st_size for file in first.parent.iterdir())
    second = keys_of(tmp_path, files, srs, 1, cap=1 << 30).pk
    assert first.exists(), "both fit"
    os.utime(first.parent, (1, 1))
    os.utime(second.parent, (2, 2))
    assert not keys_of(tmp_path, files, srs, 0, cap=2 * size).made, "used again: now the newest"
    assert keys_of(tmp_path, files, srs, 2, cap=2 * size + 100).made
    assert (first.exists(), second.exists()) == (True, False)


def test_cap_that_is_no_number_is_a_configuration_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZKML_RAY_KEYS_MAX_BYTES", "much")
    with pytest.raises(ConfigError, match="ZKML_RAY_KEYS_MAX_BYTES"):
        KeyCache(tmp_path)
