"""A complete run in a line, and in a few lines of HTML for a notebook. Needs no extra package."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np
import numpy.typing as npt

from zkml_ray.report.figures import figures
from zkml_ray.report.picture import picture
from zkml_ray.schema.manifest import Manifest
from zkml_ray.schema.plan import Plan
from zkml_ray.words import counted, seconds_in_words, size_in_words

Outputs = Mapping[str, npt.NDArray[np.float64]]


def answers(outputs: Outputs) -> list[tuple[str, str]]:
    """Per output its name and its answer: the largest element of a vector, or the value."""
    found = []
    for name, values in outputs.items():
        flat = values.ravel()
        if values.size == 1:
            found.append((name, f"{flat[0]:.6g}"))
        elif values.size and values.shape[-1] == values.size:
            found.append((name, f"largest at {int(flat.argmax())} of {values.size:,}"))
        else:
            found.append((name, f"{values.size:,} values"))
    return found


def one_line(manifest: Manifest, plan: Plan, outputs: Outputs, *, verified: bool) -> str:
    """A run in one line."""
    told = figures(plan, manifest.chunks, manifest)
    said = "; ".join(f"{name}: {answer}" for name, answer in answers(outputs)[:3])
    return (
        f"<Run {manifest.run_id}: {'verified' if verified else 'NOT verified'}, "
        f"{counted(told.chunks, 'chunk')} on {counted(told.workers, 'worker')} in "
        f"{seconds_in_words(told.wall_s)}, {said}, SRS {manifest.srs_trust}>"
    )


def as_html(manifest: Manifest, plan: Plan, outputs: Outputs, *, verified: bool) -> str:
    """A run as a small table; names are escaped, private values are not in it."""
    told = figures(plan, manifest.chunks, manifest)
    colour, word = ("#12652f", "VERIFIED") if verified else ("#b3201a", "NOT VERIFIED")
    secure = manifest.srs_trust == "ceremony"
    rows = [
        *((f"output {name}", escape(answer)) for name, answer in answers(outputs)),
        (
            "chunks",
            f"{told.chunks:,} on {counted(told.workers, 'worker')}, "
            f"{seconds_in_words(told.wall_s)} from the first key to the last proof",
        ),
        (
            "proofs",
            f"{size_in_words(told.proof_bytes)}; most memory {size_in_words(told.peak_bytes)}",
        ),
        ("plan digest", f"<code>{manifest.plan_sha256}</code>"),
        (
            "SRS",
            "public ceremony"
            if secure
            else '<b style="color:#b3201a">INSECURE</b>: whoever generated it can forge',
        ),
    ]
    cells = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th>'
        f'<td style="text-align:left">{value}</td></tr>'
        for name, value in rows
    )
    return (
        f'<div><b style="color:{colour}">{word}</b> run {escape(manifest.run_id)}, model '
        f"{escape(manifest.model_file)}{_pictures(manifest, plan)}<table>{cells}</table></div>"
    )


def _pictures(manifest: Manifest, plan: Plan) -> str:
    found = ""
    for entry in manifest.statement.revealed:
        if entry.boundary in plan.model_inputs:
            drawn = picture(plan.boundary(entry.boundary).shape, entry.values)
            if drawn is not None:
                found += (
                    f'<div><img src="{drawn}" alt="input {escape(entry.boundary)}" width="112" '
                    'style="image-rendering:pixelated"></div>'
                )
    return found
