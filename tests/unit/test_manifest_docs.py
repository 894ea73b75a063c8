"""The published specification says what the code does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel

from zkml_ray.schema.document import Document
from zkml_ray.schema.manifest import Manifest
from zkml_ray.schema.schema_export import DOCUMENTS, schema, text


@pytest.fixture(scope="module")
def docs(repository: Path) -> Path:
    return repository / "docs"


@pytest.fixture(scope="module")
def example(docs: Path) -> bytes:
    return (docs / "schema" / "example.manifest.json").read_bytes()


def fields(model: type[BaseModel]) -> set[str]:
    """Names of a document's fields and of those of every document in it."""
    found = set(model.model_fields)
    for definition in model.model_json_schema().get("$defs", {}).values():
        found |= set(definition["properties"])
    return found


def test_published_schemas_are_those_of_the_code(docs: Path) -> None:
    for name in DOCUMENTS:
        path = docs / "schema" / f"{name}.schema.json"
        assert path.read_text(encoding="utf-8") == text(name), (
            f"{path.name} is stale: python -m zkml_ray.schema.schema_export docs/schema"
        )


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_schema_is_valid_names_its_version_and_refuses_unknown_fields(name: str) -> None:
    found = schema(name)
    jsonschema.Draft202012Validator.check_schema(found)
    assert found["title"].startswith("zkml_ray/")
    assert found["additionalProperties"] is False


def test_example_manifest_validates_and_parses(example: bytes) -> None:
    document: Any = json.loads(example)
    jsonschema.Draft202012Validator(schema("manifest")).validate(document)
    parsed = Manifest.parse(example, what="example")
    assert json.loads(parsed.to_bytes()) == document


def test_example_manifest_with_an_unknown_field_is_refused_by_schema(example: bytes) -> None:
    document = {**json.loads(example), "note": "extra"}
    with pytest.raises(jsonschema.ValidationError, match="note"):
        jsonschema.Draft202012Validator(schema("manifest")).validate(document)


def test_example_manifest_names_no_machine(example: bytes) -> None:
    document: Any = json.loads(example)
    assert [chunk["node"] for chunk in document["chunks"]] == ["node-0"]
    assert not any(part.startswith(("/", "file:")) for part in document["command"])


def test_every_field_of_a_manifest_is_specified(docs: Path) -> None:
    specification = (docs / "manifest.md").read_text(encoding="utf-8")
    missing = {name for name in fields(Manifest) if f"`{name}`" not in specification}
    assert missing == set()


def test_every_published_document_has_a_version_and_a_link(docs: Path) -> None:
    specification = (docs / "manifest.md").read_text(encoding="utf-8")
    for name, model in DOCUMENTS.items():
        assert "format" in model.model_fields
        assert f"schema/{name}.schema.json" in specification
        assert issubclass(model, Document) or name == "opening"
