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
import json
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import record
from benchmarks.models.registry import MODELS
from benchmarks.processes import Outcome
from benchmarks.steps import (
    FIRST_METHOD,
    Steps,
    add_arguments,
    read_record,
    say,
    setup_record,
    write_record,
)
from benchmarks.versus_summary import (
    ratio_table,
    ratios,
    stopped,
    summarise,
    swapped,
    table,
    total_s,
    variant_name,
)

FORMAT = 2

METHODS = {
    "a": FIRST_METHOD,
    "b": "searched within memory, tables probed",
    "c": "split, links checked",
}
"""Of the stock variants. Change a line when the way to its settings changes."""


class Comparison:
    """One model's measurements, from the command line to the result file."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        self._steps = Steps.of(MODELS[given.model], given)
        self._result: dict[str, Any] = {"format": FORMAT, "variants": {}}
        if given.out.exists():
            self._result = json.loads(given.out.read_text())
        digest = self._steps.model_sha256
        if self._result.get("model_sha256", digest) != digest:
            raise SystemExit(f"{given.out} holds another model of this name; choose another file")
        self._result |= {
            "model": given.model,
            "title": self._steps.model.title,
            "model_sha256": digest,
            "sample": given.sample,
        }

    def run(self) -> None:
        """Let the variants take turns, each made ready before its first one.

        (b) comes last: it may be as inaccurate as (a), whose error must be known. A variant that
        was stopped is not tried again.
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
                    ready[variant] = self._measure(variant, repeat)
        if self._given.discard_keys:
            for variant in order:
                shutil.rmtree(self._steps.folder(variant))

    def _measure(self, variant: str, repeat: int) -> bool:
        """Run a variant once; False where it was stopped."""
        found = self._steps.run("prove", variant)
        now = record.circumstances()
        run = {"repeat": repeat, **{k: now[k] for k in ("at", "commit", "cpu")}, **asdict(found)}
        self._result["variants"][variant]["runs"].append(run)
        shown = found.failure or f"{total_s(variant, run):.2f} s"
        say(f"{variant} ({variant_name(variant)}), repeat {repeat}: {shown}")
        self._save()
        return not found.stopped

    def _prepared(self, variant: str) -> bool:
        """Make a variant's keys, or find them; False where they cannot be made."""
        entry = self._result["variants"].setdefault(variant, {"runs": []})
        if variant.startswith("d"):
            entry |= self._steps.ready_ours(variant)
        else:
            method = self._method(variant)
            entry |= read_record(self._steps.folder(variant), method) or self._made(variant, method)
        self._save()
        failure = entry["setup"]["failure"]
        say(f"{variant} ({variant_name(variant)}), setup: {failure or 'ready'}")
        return not failure

    def _method(self, variant: str) -> str:
        """How a stock variant's settings are found: keys made otherwise are made again."""
        if variant == "b":
            return f"{METHODS[variant]}, error at most {self._max_error():g}"
        return METHODS[variant]

    def _made(self, variant: str, method: str) -> dict[str, Any]:
        """Make a stock variant's settings and keys."""
        folder = self._steps.folder(variant)
        more = []
        if variant == "b":
            more = ["--max-error", str(self._max_error())]
            more += ["--finalists", str(self._given.finalists)]
            more += ["--memory-bytes", str(self._steps.limit_bytes)]
        settings = self._steps.run("settings", variant, threads=1, more=more)
        made: dict[str, Any] = {"settings": asdict(settings)}
        if settings.failure:
            return {**made, "setup": setup_record(settings)}
        if reason := settings.facts.get("impossible"):
            return {**made, "setup": setup_record(replace(settings, failure=reason))}
        if variant == "b":
            setup, made["trials"] = self._best_finalist(folder)
        else:
            setup = self._steps.run("setup", variant)
        made["setup"] = setup_record(setup)
        write_record(folder, made, method)
        return made

    def _best_finalist(self, folder: Path) -> tuple[Outcome, list[dict[str, Any]]]:
        """Prove (b)'s finalists once; the fastest becomes the variant.

        One that fails, or that memory stops, leaves the others their turn. Only the best so far
        keeps its keys: they are gigabytes.
        """
        best: tuple[float, Path, Outcome] | None = None
        trials = []
        setup: Outcome | None = None
        for candidate in sorted(folder.glob("finalist-*")):
            setup = found = self._steps.run("setup", "b", folder=candidate)
            step = "setup"
            if not found.failure:
                found, step = self._steps.run("prove", "b", folder=candidate), "prove"
            spent = None if found.failure else total_s("b", asdict(found))
            trials.append(
                {
                    "finalist": candidate.name,
                    "step": step,
                    "total_s": spent,
                    "largest_bytes": found.largest_bytes,
                    "stopped": found.stopped,
                    "failure": found.failure,
                }
            )
            say(f"b, {candidate.name}: {found.failure or f'{spent:.2f} s'}")
            loser = candidate
            if spent is not None and (best is None or spent < best[0]):
                loser = best[1] if best else None
                best = spent, candidate, setup
            if loser is not None:
                shutil.rmtree(loser)
        if setup is None:
            raise RuntimeError("the search left no finalist")
        if best is None:
            why = "; ".join(trial["failure"] for trial in trials)
            return replace(setup, failure=f"no finalist could be proved: {why}"), trials
        best[1].joinpath("part-000").replace(folder / "part-000")
        best[1].rmdir()
        return best[2], trials

    def _max_error(self) -> float:
        """The largest error that (b) may have on the calibration inputs: (a)'s."""
        if self._given.max_error is not None:
            return float(self._given.max_error)
        entry = self._result["variants"].get("a") or read_record(
            self._steps.folder("a"), METHODS["a"]
        )
        if entry is None:
            raise SystemExit("(b) may be as inaccurate as (a): run (a) before, or --max-error")
        return float(entry["settings"]["facts"]["max_error"])

    def _save(self) -> None:
        self._result["machine"] = record.circumstances()
        self._result["summary"] = summarise(self._result["variants"])
        variants, cores = self._result["variants"], self._result["machine"]["cores"]
        self._result["stopped"] = stopped(variants) | swapped(variants, cores)
        self._result["ratios"] = {
            variant: ratios(self._result["summary"], variant, self._result["stopped"])
            for variant in self._result["variants"]
            if variant.startswith("d")
        }
        self._result |= self._result["ratios"].get(f"d{self._given.workers}", {})
        self._given.out.parent.mkdir(parents=True, exist_ok=True)
        self._given.out.write_text(json.dumps(self._result, indent=1, sort_keys=True) + "\n")

    def show(self) -> None:
        """Print the tables."""
        print("\n".join([*table([self._result]), "", *ratio_table([self._result])]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variants", default=None, help="of a,b,c,d1,dN; default: all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--replace", action="store_true", help="drop the variants' former runs")
    parser.add_argument("--discard-keys", action="store_true", help="at the end; they are large")
    parser.add_argument(
        "--max-error", type=float, default=None, help="bound for (b)'s search; default: (a)'s"
    )
    parser.add_argument("--finalists", type=int, default=3, help="of (b)'s search, to be proved")
    add_arguments(parser)
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
