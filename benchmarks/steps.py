"""Starting the steps of `benchmarks.variant` in watched processes, with keys kept between runs.

Every variant has a folder in the cache, named by model and variant, with a record.json once its
keys are made. zkml_ray's folder is its key cache; when the plan has changed, its keys are made
again, so that setup is always measured whole. The SRS files are one for all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.models.registry import BenchmarkModel
from benchmarks.processes import Outcome, watch

ROOT = Path(__file__).resolve().parent.parent

OPTIONS: Final[Mapping[str, Any]] = {"scale": 12, "circuits": "auto"}
"""PlanOptions of every benchmark of zkml_ray, where the command line says nothing else. The scale
is the smallest at which every model is as accurate as with stock ezkl's own calibration, by mean
and by largest error (benchmarks/accuracy.py)."""

FIRST_METHOD = "first"
"""How the keys of records were made that do not say it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that `Steps.of` reads."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    parser.add_argument("--sample", type=int, default=0, help="which of the model's inputs")
    parser.add_argument(
        "--options", default="{}", help=f"zkml_ray's PlanOptions, as JSON, over {OPTIONS}"
    )
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "benchmarks")
    parser.add_argument("--memory-limit-gib", type=float, default=0.92 * memory_gib)
    parser.add_argument("--time-limit-s", type=float, default=7200)


def merged_options(given: str) -> dict[str, Any]:
    """PlanOptions: the benchmarks' own, and what the command line gives (JSON)."""
    return {**OPTIONS, **json.loads(given)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Runs steps of one model's variants.

    Attributes:
        model: The model.
        sample: Which of its inputs is proved.
        options: zkml_ray's PlanOptions, as JSON.
        cache: Folder of all variants' folders.
        limit_bytes: Memory at which a step's processes are killed.
        limit_s: Seconds after which they are.
    """

    model: BenchmarkModel
    sample: int
    options: str
    cache: Path
    limit_bytes: int
    limit_s: float

    @classmethod
    def of(cls, model: BenchmarkModel, given: argparse.Namespace) -> Steps:
        """From the command line."""
        return cls(
            model=model,
            sample=given.sample,
            options=json.dumps(merged_options(given.options)),
            cache=given.cache.resolve(),
            limit_bytes=int(given.memory_limit_gib * (1 << 30)),
            limit_s=given.time_limit_s,
        )

    @property
    def model_sha256(self) -> str:
        """Digest of the model's file."""
        return hashlib.sha256(self.model.path.read_bytes()).hexdigest()

    def folder(self, variant: str) -> Path:
        """A variant's folder, made if it is missing."""
        folder = self.cache / f"{self.model.name}-{self.model_sha256[:12]}-{variant}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def run(
        self,
        step: str,
        variant: str,
        *,
        folder: Path | None = None,
        threads: int | None = None,
        more: Sequence[str] = (),
    ) -> Outcome:
        """Run one step.

        Args:
            step: "settings", "setup" or "prove".
            variant: "a", "b", "c", "d1", "d2", ...
            folder: Its folder, if it is not the variant's own.
            threads: Of stock ezkl, default all cores; of each worker, default zkml_ray's.
            more: Further options of `benchmarks.variant`.
        """
        ours = variant.startswith("d")
        folder = folder or self.folder(variant)
        # Stock circuits lie in their folders and need only the SRS files of the shared one.
        cache = folder if ours else self.cache / "shared"
        environment = {"ZKML_RAY_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "benchmarks.variant", step, "--variant", variant]
        command += ["--model", self.model.name, "--folder", str(folder)]
        command += ["--sample", str(self.sample), "--options", self.options, *more]
        if not ours:
            environment["RAYON_NUM_THREADS"] = str(threads or os.cpu_count() or 1)
        elif threads:
            command += ["--threads", str(threads)]
        with tempfile.TemporaryDirectory(prefix="zkml-ray-bench-") as scratch:
            report = Path(scratch) / "report.json"
            return watch(
                [*command, "--report", str(report)],
                report,
                environment=environment,
                limit_bytes=self.limit_bytes,
                limit_s=self.limit_s,
            )

    def ready_ours(self, variant: str) -> dict[str, Any]:
        """Plan zkml_ray's circuits and have their keys.

        Returns:
            `settings` and `setup`; a failure stands in `setup`.
        """
        folder = self.folder(variant)
        shared = self.cache / "shared" / "srs"
        shared.mkdir(parents=True, exist_ok=True)
        if not (folder / "srs").is_symlink():
            (folder / "srs").symlink_to(shared)
        settings = self.run("settings", variant)
        if settings.failure:
            return {"settings": asdict(settings), "setup": setup_record(settings)}
        method = f"plan {settings.facts['plan_sha256']}"
        if (known := read_record(folder, method)) is not None:
            return known
        for kind in ("keys", "circuits"):
            shutil.rmtree(folder / kind, ignore_errors=True)
        setup = self.run("setup", variant)
        record = {"settings": asdict(settings), "setup": setup_record(setup)}
        write_record(folder, record, method)
        return record


def setup_record(found: Outcome) -> dict[str, Any]:
    """What a result file says about a setup."""
    if found.failure:
        names = ("failure", "stopped", "begun_s", "wall_s", "cpu_s", "largest_bytes", "total_bytes")
        return {name: getattr(found, name) for name in names}
    return {"failure": "", **found.phases["setup"], **found.facts}


def read_record(folder: Path, method: str) -> dict[str, Any] | None:
    """A variant's settings and setup, if its keys are made, and made by this method."""
    path = folder / "record.json"
    if not path.exists():
        return None
    record: dict[str, Any] = json.loads(path.read_text())
    return record if record.pop("method", FIRST_METHOD) == method else None


def write_record(folder: Path, record: dict[str, Any], method: str) -> None:
    """Write it, unless the setup failed.

    Args:
        folder: The variant's.
        record: Settings and setup.
        method: Names how the settings were found, with whatever they depend on.
    """
    (folder / "record.json").unlink(missing_ok=True)
    if not record["setup"]["failure"]:
        (folder / "record.json").write_text(json.dumps({**record, "method": method}))


def say(text: str) -> None:
    """Tell whoever watches."""
    print(text, file=sys.stderr, flush=True)
