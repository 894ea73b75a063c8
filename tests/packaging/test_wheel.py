"""What is published: one package, whole, importable without the checkout."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

PARTS = ["chunking", "cluster", "commitments"]
BUILD_TIMEOUT_S = 120

IMPORTS = """
import sys
wheel = sys.argv[1]
sys.path.insert(0, wheel)
import zkml_ray.chunking.graph
import zkml_ray.cluster.worker
import zkml_ray.commitments.leaves
import zkml_ray.verifying.verifier
ours = [m for name, m in sys.modules.items() if name.split(".")[0] == "zkml_ray"]
assert all(m.__file__.startswith(wheel) for m in ours), [m.__file__ for m in ours]
assert not {"chunking", "cluster", "commitments"} & sys.modules.keys()
print(len(ours))
"""

PUBLIC_NAMES = {
    "BatchError": "type",
    "PlanOptions": "type",
    "Prover": "type",
    "Run": "type",
    "SampleInputs": "type",
    "VerifierPolicy": "type",
    "__version__": "str",
    "prove_distributed": "function",
    "prove_many": "function",
    "resume": "function",
    "verify": "function",  # though zkml_ray.verifying and zkml_ray.verifier have been imported
}
PROGRAMS = {
    "zkml-ray": "zkml_ray.command_line.cli:main",
    "zkml-o3-runner": "zkml_ray.command_line.o3_runner:main",
}

PUBLIC = """
import importlib, json, sys
import zkml_ray
import zkml_ray.verifying.verifier
import zkml_ray.verifier
kinds = {name: type(getattr(zkml_ray, name)).__name__ for name in zkml_ray.__all__}
programs = {}
for target in sys.argv[1:]:
    module, _, name = target.partition(":")
    programs[target] = callable(getattr(importlib.import_module(module), name))
print(json.dumps([zkml_ray.__file__, kinds, programs]))
"""


@pytest.fixture(scope="module")
def clean_copy(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files git would commit, and nothing that happens to lie beside them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=repository,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    target = tmp_path_factory.mktemp("checkout") / "zkml_ray"
    for name in filter(None, listed.split("\0")):
        source = repository / name
        if not (source.is_symlink() or source.is_file()):
            continue  # deleted, not yet committed
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target / name, follow_symlinks=False)
    return target


def build(kind: str, source: Path, out: Path) -> Path:
    """Run `python -m build` with the build requirements that are installed."""
    out.mkdir(exist_ok=True)
    subprocess.run(
        [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", out, source],
        capture_output=True,
        check=True,
        timeout=BUILD_TIMEOUT_S,
    )
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def sdist(clean_copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", clean_copy, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the unpacked sdist, as pip would make it."""
    folder = tmp_path_factory.mktemp("unpacked sdist")
    with tarfile.open(sdist) as archive:
        if hasattr(tarfile, "data_filter"):  # from Python 3.10.12 and 3.11.4 on
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(folder)
    (source,) = folder.iterdir()
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the wheel installs."""
    folder = tmp_path_factory.mktemp("unpacked wheel")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python where a wheel is unpacked, which it finds before the checkout."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={"PATH": os.environ.get("PATH", "")},
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
    )


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert len(names) == len(set(names)), "a file is in the wheel twice"
    return set(names)


def test_wheel_holds_one_package_and_its_metadata_at_the_top(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in names_in(wheel)}
    (info,) = tops - {"zkml_ray"}
    assert info.startswith("zkml_ray-")
    assert info.endswith(".dist-info")


@pytest.mark.parametrize("part", PARTS)
def test_wheel_holds_every_module_of_a_top_level_folder(
    part: str, wheel: Path, clean_copy: Path
) -> None:
    expected = {
        f"zkml_ray/{path.relative_to(clean_copy).as_posix()}"
        for path in (clean_copy / part).rglob("*.py")
    }
    assert f"zkml_ray/{part}/__init__.py" in expected
    assert expected <= names_in(wheel)


def test_wheel_holds_exactly_the_modules_of_the_checkout(wheel: Path, clean_copy: Path) -> None:
    expected = set()
    for top in ("zkml_ray", *PARTS):
        prefix = "" if top == "zkml_ray" else "zkml_ray/"
        for path in (clean_copy / top).rglob("*.py"):
            relative = path.relative_to(clean_copy)
            if relative.parts[:1] == ("zkml_ray",) and relative.parts[1] in PARTS:
                continue  # seen through a link
            expected.add(prefix + relative.as_posix())
    assert {name for name in names_in(wheel) if name.endswith(".py")} == expected


def test_wheel_made_from_the_checkout_is_the_one_made_from_the_sdist(
    wheel: Path, clean_copy: Path, tmp_path: Path
) -> None:
    direct = build("wheel", clean_copy, tmp_path / "direct")
    assert direct.name == wheel.name
    with zipfile.ZipFile(direct) as first, zipfile.ZipFile(wheel) as second:
        contents = [
            {name: archive.read(name) for name in archive.namelist()} for archive in (first, second)
        ]
    assert contents[0] == contents[1]


def test_wheel_unpacked_can_be_imported_without_the_checkout(
    unpacked: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", IMPORTS, unpacked],
        cwd=tmp_path,
        env={"PATH": os.environ.get("PATH", "")},
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > len(PARTS)


def test_wheel_holds_the_public_names_and_programs(unpacked: Path) -> None:
    done = run_in(unpacked, "-c", PUBLIC, *PROGRAMS.values())
    assert done.returncode == 0, done.stderr
    file, kinds, programs = json.loads(done.stdout)
    assert Path(file) == unpacked / "zkml_ray" / "__init__.py"
    assert kinds == PUBLIC_NAMES
    assert programs == dict.fromkeys(PROGRAMS.values(), True)


def test_no_module_has_a_public_name_that_it_would_hide_once_imported(wheel: Path) -> None:
    children = {name.split("/")[1].removesuffix(".py") for name in names_in(wheel) if "/" in name}
    assert {"api", "verifier", "verifying"} <= children
    assert not children & set(PUBLIC_NAMES)


def test_wheel_runs_the_verifier_as_a_program(unpacked: Path) -> None:
    done = run_in(unpacked, "-m", "zkml_ray.verifier", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: python -m zkml_ray.verifier" in done.stdout
    assert "--plan-digest" in done.stdout


def read_info(wheel: Path) -> dict[str, str]:
    """The wheel's metadata files, by name."""
    with zipfile.ZipFile(wheel) as archive:
        return {
            name.rpartition("/")[2]: archive.read(name).decode()
            for name in archive.namelist()
            if ".dist-info/" in name and "licenses" not in name
        }


def test_wheel_names_the_programs_and_the_pinned_backend(wheel: Path) -> None:
    read = read_info(wheel)
    entries = configparser.ConfigParser()
    entries.optionxform = str  # type: ignore[assignment,method-assign]
    entries.read_string(read["entry_points.txt"])
    assert dict(entries["console_scripts"]) == PROGRAMS
    metadata = read["METADATA"].splitlines()
    assert "Requires-Dist: ezkl==23.0.5" in metadata
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.10" in metadata


def test_wheel_requires_ray_onnxruntime_and_boto3_by_extras_alone(wheel: Path) -> None:
    lines = read_info(wheel)["METADATA"].splitlines()
    required = [line.removeprefix("Requires-Dist: ") for line in lines if "Requires-Dist" in line]
    base = {re.split(r"[\[<>=; ]", line)[0] for line in required if "extra ==" not in line}
    by_extra = {
        extra: {re.split(r"[\[<>=; ]", line)[0] for line in required if f"'{extra}'" in line}
        for extra in ("verify", "prove", "s3", "report")
    }
    assert base >= {"ezkl", "onnx", "pydantic", "rfc8785"}
    assert by_extra == {
        "verify": set(),
        "prove": {"ray", "onnxruntime"},
        "s3": {"boto3"},
        "report": {"jinja2", "vl-convert-python"},
    }
    assert not base & {"ray", "onnxruntime", "boto3"}
    assert {"Provides-Extra: verify", "Provides-Extra: prove", "Provides-Extra: s3"} <= {*lines}


def test_sdist_holds_no_tests_links_or_caches(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert all(member.isfile() or member.isdir() for member in members)
    tops = {Path(member.name).parts[1] for member in members if len(Path(member.name).parts) > 1}
    assert {"zkml_ray", *PARTS, "pyproject.toml", "LICENSE", "README.md"} <= tops
    assert not {"tests", ".cache", ".venv", "shared"} & tops
