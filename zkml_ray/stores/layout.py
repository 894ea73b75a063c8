"""Keys of a project's objects (docs/manifest.md).

projects/<project>/runs/<run>/manifest.json      written last: the run exists once it does
projects/<project>/runs/<run>/{proofs,private,reports}/...
projects/<project>/artifacts/<kind>/<sha256>     shared by runs
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from zkml_ray.config import checked_name
from zkml_ray.stores.base import ArtifactStore

MANIFEST: Final = "manifest.json"
"""A manifest's name, in its run as in a folder that a run is fetched into."""


@dataclass(frozen=True, slots=True)
class RunLayout:
    """Keys of one run.

    Attributes:
        project: Project name.
        run_id: Run id.
    """

    project: str
    run_id: str

    def __post_init__(self) -> None:
        checked_name("project", self.project)
        checked_name("run", self.run_id)

    @property
    def manifest(self) -> str:
        """Key of the manifest."""
        return self.run_key(MANIFEST)

    def run_key(self, name: str) -> str:
        """Key of an object of this run alone."""
        return f"projects/{self.project}/runs/{self.run_id}/{name}"

    def artifact_key(self, kind: str, sha256: str) -> str:
        """Key of an object shared by the project's runs."""
        return f"projects/{self.project}/artifacts/{kind}/{sha256}"


def run_objects(store: ArtifactStore, project: str) -> Iterator[tuple[str, str, str]]:
    """(run id, name in the run, key) of every object that one run of a project has to itself."""
    prefix = f"projects/{checked_name('project', project)}/runs/"
    for key in store.keys(prefix):
        run_id, separator, name = key.removeprefix(prefix).partition("/")
        if separator:
            yield run_id, name, key


def stored_runs(store: ArtifactStore, project: str) -> Iterator[str]:
    """Ids of a project's complete runs, sorted."""
    for run_id, name, _ in run_objects(store, project):
        if name == MANIFEST:
            yield run_id
