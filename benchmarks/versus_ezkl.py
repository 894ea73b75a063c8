"""zkml_ray beside stock ezkl: the same model, input, machine and run.

    python benchmarks/versus_ezkl.py --model lenet5 --workers 2 --out FILE

Variants:

- a: stock ezkl, one circuit, default arguments after its own calibration (target "resources");
- b: one circuit with the best arguments that a search finds, no rewrites (`benchmarks.tuning`);
- c: ezkl's proof_splitting notebook: a circuit per layer, hashed boundaries, default arguments, one
  after the other;
- d1, dN: zkml_ray with 1 and with N workers, into a local store: Ray's start, planning,
  commitments, link and verification included.

Every step runs in a fresh process whose whole tree is watched (`benchmarks.processes`). Keys are
made beforehand and kept in --cache, and every circuit gets an SRS of exactly its logrows. Then the
variants take turns, --repeats times. a, b and c have all cores; d has zkml_ray's defaults.

Variants can be run one by one (--variants a, later --variants d1,d2 with the same --out): the file
keeps the others' runs, each with its own time and commit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import record
from benchmarks.models.registry import MODELS
from benchmarks.processes import Outcome, watch
from benchmarks.versus_summary import ratios, summarise, table, total_s, variant_name

ROOT = Path(__file__).resolve().parent.parent
FORMAT = 1


class Comparison:
    """One model's measurements, from the command line to the result file."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        self._model = MODELS[given.model]
        self._cache: Path = given.cache.resolve()
        self._shared = self._cache / "shared"
        self._result: dict[str, Any] = {"format": FORMAT, "variants": {}}
        if given.out.exists():
            self._result = json.loads(given.out.read_text())
        digest = hashlib.sha256(self._model.path.read_bytes()).hexdigest()
        if self._result.get("model_sha256", digest) != digest:
            raise SystemExit(f"{given.out} holds another model of this name; choose another file")
        self._result |= {
            "model": given.model,
            "title": self._model.title,
            "model_sha256": digest,
            "sample": given.sample,
        }

    def run(self) -> None:
        """Let the variants take turns, each made ready before its first one.

        (b) comes last: it may be as inaccurate as the others, so their errors must be known.
        """
        order = sorted(self._given.variants, key=lambda variant: (variant == "b", variant))
        if self._given.replace:
            for variant in order:
                self._result["variants"].pop(variant, None)
        ready = {variant: self._prepared(variant) for variant in order if variant != "b"}
        for repeat in range(self._given.repeats):
            for variant in order:
                if variant not in ready:
                    ready[variant] = self._prepared(variant)
                if ready[variant]:
                    self._measure(variant, repeat)

    def _measure(self, variant: str, repeat: int) -> None:
        found = self._step("prove", variant, self._folder(variant))
        now = record.circumstances()
        run = {"repeat": repeat, **{k: now[k] for k in ("at", "commit", "cpu")}, **asdict(found)}
        self._result["variants"][variant]["runs"].append(run)
        shown = found.failure or f"{total_s(variant, run):.2f} s"
        say(f"{variant} ({variant_name(variant)}), repeat {repeat}: {shown}")
        self._save()

    def _prepared(self, variant: str) -> bool:
        """Make a variant's keys, or find them; False where they cannot be made."""
        entry = self._result["variants"].setdefault(variant, {"runs": []})
        folder = self._folder(variant)
        folder.mkdir(parents=True, exist_ok=True)
        known = folder / "record.json"
        if variant.startswith("d"):
            (self._shared / "srs").mkdir(parents=True, exist_ok=True)
            if not (folder / "srs").is_symlink():
                (folder / "srs").symlink_to(self._shared / "srs")
            settings = self._step("settings", variant, folder)
            if known.exists():
                former = json.loads(known.read_text())["settings"]["facts"].get("plan_sha256")
                if former != settings.facts.get("plan_sha256"):
                    known.unlink()
            if not known.exists():
                for kind in ("keys", "circuits"):
                    shutil.rmtree(folder / kind, ignore_errors=True)
        elif not known.exists():
            settings = self._step("settings", variant, folder, threads=1)
        if known.exists():
            entry |= json.loads(known.read_text())
        else:
            self._make(variant, folder, settings, entry)
        self._save()
        failure = entry["setup"]["failure"]
        say(f"{variant} ({variant_name(variant)}), setup: {failure or 'ready'}")
        return not failure

    def _make(self, variant: str, folder: Path, settings: Outcome, entry: dict[str, Any]) -> None:
        entry["settings"] = asdict(settings)
        if settings.failure:
            entry["setup"] = {"failure": settings.failure, **_nothing()}
            return
        search = variant == "b"
        setup = self._final(folder, entry) if search else self._step("setup", variant, folder)
        entry["setup"] = self._setup_of(setup)
        if not setup.failure:
            kept = {name: entry[name] for name in ("settings", "setup", "trials") if name in entry}
            (folder / "record.json").write_text(json.dumps(kept))

    def _final(self, folder: Path, entry: dict[str, Any]) -> Outcome:
        """Prove (b)'s finalists once; the fastest becomes the variant."""
        trials = []
        for candidate in sorted(folder.glob("finalist-*")):
            setup = self._step("setup", "b", candidate)
            proved = None if setup.failure else self._step("prove", "b", candidate)
            usable = proved is not None and not proved.failure
            spent = total_s("b", asdict(proved)) if proved is not None and usable else float("inf")
            trials.append((spent, candidate, setup))
            failure = setup.failure or (proved.failure if proved else "")
            say(f"b, {candidate.name}: {failure or f'{spent:.2f} s'}")
            entry.setdefault("trials", []).append(
                {
                    "finalist": candidate.name,
                    "total_s": spent if usable else None,
                    "failure": failure,
                }
            )
        spent, best, setup = min(trials, key=lambda trial: trial[0])
        if spent == float("inf"):
            return replace(setup, failure="no finalist could be proved")
        (best / "part-000").replace(folder / "part-000")
        for _, candidate, _ in trials:
            shutil.rmtree(candidate, ignore_errors=True)
        return setup

    def _setup_of(self, found: Outcome) -> dict[str, Any]:
        if found.failure:
            return {"failure": found.failure, **_nothing(), "largest_bytes": found.largest_bytes}
        return {"failure": "", **found.phases["setup"], **found.facts}

    def _folder(self, variant: str) -> Path:
        digest = self._result["model_sha256"]
        return self._cache / f"{self._model.name}-{digest[:12]}-{variant}"

    def _max_error(self) -> float:
        """The largest error that (b) may have: (a)'s or ours, whichever is larger."""
        if self._given.max_error is not None:
            return float(self._given.max_error)
        known = []
        for variant, entry in self._result["variants"].items():
            if variant == "a" and "settings" in entry:
                known.append(entry["settings"]["facts"].get("max_error"))
            if variant.startswith("d"):
                known += [run["facts"].get("max_error") for run in entry["runs"]]
        bound = max((value for value in known if value is not None), default=None)
        if bound is None:
            raise SystemExit(
                "(b) may be as inaccurate as (a) or (d): run one before, or --max-error"
            )
        return float(bound)

    def _step(
        self, step: str, variant: str, folder: Path, *, threads: int | None = None
    ) -> Outcome:
        # Stock circuits lie in their folders and need only the SRS files of the shared one.
        cache = folder if variant.startswith("d") else self._shared
        environment = {"ZKML_RAY_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
        if not variant.startswith("d"):
            environment["RAYON_NUM_THREADS"] = str(threads or os.cpu_count() or 1)
        given = self._given
        command = [sys.executable, "-m", "benchmarks.variant", step, "--variant", variant]
        command += ["--model", given.model, "--folder", str(folder)]
        command += ["--sample", str(given.sample), "--options", given.options]
        if step == "settings" and variant == "b":
            command += ["--max-error", str(self._max_error()), "--finalists", str(given.finalists)]
        with tempfile.TemporaryDirectory(prefix="zkml-ray-bench-") as scratch:
            report = Path(scratch) / "report.json"
            return watch(
                [*command, "--report", str(report)],
                report,
                environment=environment,
                limit_bytes=int(given.memory_limit_gib * (1 << 30)),
                limit_s=given.time_limit_s,
            )

    def _save(self) -> None:
        self._result["machine"] = record.circumstances()
        self._result["summary"] = summarise(self._result["variants"])
        self._result["ratios"] = {
            variant: ratios(self._result["summary"], variant)
            for variant in self._result["variants"]
            if variant.startswith("d")
        }
        headline = self._result["ratios"].get(f"d{self._given.workers}")
        self._result |= headline or {}
        self._given.out.parent.mkdir(parents=True, exist_ok=True)
        self._given.out.write_text(json.dumps(self._result, indent=1, sort_keys=True) + "\n")

    def show(self) -> None:
        """Print the table."""
        print("\n".join(table([self._result])))
        print(json.dumps(self._result["ratios"], indent=1))


def _nothing() -> dict[str, float]:
    return {"wall_s": 0.0, "cpu_s": 0.0, "largest_bytes": 0}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variants", default=None, help="of a,b,c,d1,dN; default: all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sample", type=int, default=0, help="which of the model's inputs")
    parser.add_argument("--replace", action="store_true", help="drop the variants' former runs")
    parser.add_argument("--max-error", type=float, default=None, help="bound for (b)'s search")
    parser.add_argument("--finalists", type=int, default=2, help="of (b)'s search, to be proved")
    parser.add_argument("--options", default="{}", help="zkml_ray's PlanOptions, as JSON")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "benchmarks")
    parser.add_argument("--memory-limit-gib", type=float, default=0.92 * memory_gib)
    parser.add_argument("--time-limit-s", type=float, default=7200)
    given = parser.parse_args()
    every = ["a", "b", "c", *dict.fromkeys(["d1", f"d{given.workers}"])]
    given.variants = every if given.variants is None else given.variants.split(",")
    unknown = [v for v in given.variants if v not in ("a", "b", "c") and not v[1:].isdigit()]
    if unknown:
        parser.error(f"no such variants: {', '.join(unknown)}")
    comparison = Comparison(given)
    comparison.run()
    comparison.show()


if __name__ == "__main__":
    main()
