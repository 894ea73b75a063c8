"""Refusal codes: every one is documented, and every one that is documented is raised and tested."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

UNUSED = "invalid"
"""The default of the root class; every refusal has a code of its own."""


def sources(repository: Path) -> Iterator[ast.Module]:
    for folder in ("zkml_ray", "commitments", "chunking"):
        for path in (repository / folder).rglob("*.py"):
            yield ast.parse(path.read_text())


@pytest.fixture(scope="module")
def raised(repository: Path) -> set[str]:
    """Codes in the source: given to an error, to `malformed_as`, or a class's default."""
    found: set[str] = set()
    for module in sources(repository):
        for node in ast.walk(module):
            value: ast.expr | None = None
            if isinstance(node, ast.keyword) and node.arg == "code":
                value = node.value
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "malformed_as":
                value = node.args[0]
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "default_code":
                value = node.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found.add(value.value)
    return found - {UNUSED}


def test_security_document_lists_exactly_the_codes_of_the_source(
    raised: set[str], repository: Path
) -> None:
    listed = re.findall(
        r"^\| `([a-z-]+)` \|", (repository / "docs" / "security.md").read_text(), re.MULTILINE
    )
    assert listed == sorted(raised)


def test_every_code_has_a_test_that_expects_it(raised: set[str], repository: Path) -> None:
    folders = [repository / "tests" / kind for kind in ("soundness", "unit")]
    others = [p for f in folders for p in f.glob("*.py") if p != Path(__file__).resolve()]
    text = "".join(path.read_text() for path in others)
    text = text.replace("OpeningError.default_code", '"opening"')
    assert {code for code in raised if f'"{code}"' not in text} == set()


def test_no_refusal_is_raised_without_a_code(repository: Path) -> None:
    for module in sources(repository):
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
                "VerificationError",
                "TrustRootError",
            ):
                assert "code" in {keyword.arg for keyword in node.keywords}, ast.unparse(node)
