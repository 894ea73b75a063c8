"""The report of a run: what it says, that it needs nothing, and that nothing private is in it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.integration.command import run_here
from tests.integration.report_runs import HOSTILE, SMALL, failed_run, hostile_run, large_run
from tests.soundness.here import prove_here
from zkml_ray import names
from zkml_ray.api import Run
from zkml_ray.report.accuracy import boundary_accuracy
from zkml_ray.report.facts import RunFacts, gather
from zkml_ray.report.page import render
from zkml_ray.report.timeline import timeline, trace_events
from zkml_ray.schema.checkpoint import BoundaryCheckpoint
from zkml_ray.schema.eventlog import EventLog
from zkml_ray.stores import ArtifactStore, open_store
from zkml_ray.stores.layout import RunLayout

VOID = {"meta", "img", "br", "hr", "link", "input"}
NAMESPACES = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


class Page(HTMLParser):
    """A page taken apart: tags with attributes, text, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def attributes(self) -> Iterator[tuple[str, str, str]]:
        for tag, attributes in self.tags:
            for name, value in attributes.items():
                yield tag, name, value


def page_of(store: ArtifactStore, run_id: str, project: str = "default") -> tuple[str, RunFacts]:
    facts = gather(store, RunLayout(project, run_id))
    return render(facts, boundary_accuracy(facts, store)), facts


def assert_needs_nothing(text: str) -> Page:
    """No script, no handler, nothing from elsewhere."""
    page = Page(text)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {
        "script",
        "iframe",
        "object",
        "embed",
        "link",
        "base",
        "form",
        "foreignobject",
    }
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("href", "xlink:href"):
            assert value.startswith("#"), value
        if name == "src":
            assert value.startswith("data:image/png;base64,"), value
        if name == "style":
            assert "url(" not in value
    named = set(re.findall(r'(?:xmlns(?::xlink)?)="([^"]*)"', text))
    assert named <= NAMESPACES
    css = text.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in css and "@import" not in css
    assert "default-src 'none'" in text
    slips = r"built-in|object at 0x|\bNone\b|\bnan\b|\bundefined\b"
    assert not re.search(slips, page.text), "what a template prints by mistake"
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    return page


@pytest.fixture(scope="module")
def good(digits_run: Run) -> tuple[str, RunFacts]:
    return page_of(open_store(digits_run.store), digits_run.run_id, digits_run.project)


def test_page_of_a_good_run_says_what_was_proved_and_how_to_check_it(
    good: tuple[str, RunFacts], digits_run: Run
) -> None:
    text, _ = good
    page = assert_needs_nothing(text)
    said = page.text
    assert "VERIFIED" in said and "INSECURE SRS" in said
    assert "The largest of 10 values is element 7." in said
    assert f"--plan-digest {digits_run.plan_digest}" in said
    assert digits_run.manifest.model_sha256 in said
    for word in ("Trust root: none of its own", "prover's word", "Not claimed", "copy of what"):
        assert word in said, word
    for boundary in digits_run.manifest.boundaries:
        assert boundary.commitment in said
    for name, ref in digits_run.manifest.artifacts.items():
        assert name in said and ref.sha256 in said
    pictures = [a for tag, a in page.tags if tag == "img"]
    assert len(pictures) == 1 and "8 x 8" in pictures[0]["alt"]
    boundaries = [a for tag, a in page.tags if tag == "details" and a.get("class") == "boundary"]
    assert len(boundaries) == len(digits_run.plan.boundaries)


def test_floats_stand_beside_revealed_outputs(good: tuple[str, RunFacts], digits_run: Run) -> None:
    text, facts = good
    (name,) = digits_run.outputs
    floats = facts.revealed()[name].floats
    assert floats is not None
    assert floats == pytest.approx(digits_run.float_outputs[name].ravel().tolist())
    assert f"{floats[7]:.6g}" in text


def test_timeline_is_that_of_the_records_and_the_log(
    good: tuple[str, RunFacts], digits_run: Run
) -> None:
    _, facts = good
    line = timeline(facts)
    proved = {span.chunk: span for span in line.work if span.kind == "prove"}
    for record in digits_run.manifest.chunks:
        span = proved[record.chunk]
        assert (span.lane, span.started_s, span.ended_s) == (
            record.worker,
            record.prove.started_s,
            record.prove.ended_s,
        )
    assert line.lanes()[:3] == ["coordinator", "Ray", "checks"]
    ends = [span.ended_s for span in line.work if span.lane == "checks"]
    assert len(ends) == len(digits_run.manifest.chunks), "a check for every proof"
    for worker, idle in line.idle_s().items():
        assert worker.startswith("worker-") and min(idle) >= 0


def test_trace_is_chrome_s_format(good: tuple[str, RunFacts]) -> None:
    _, facts = good
    document = json.loads(json.dumps(trace_events(facts)))
    spans = [event for event in document["traceEvents"] if event["ph"] == "X"]
    assert len(spans) == len(timeline(facts).work)
    assert all(isinstance(e["ts"], int) and e["ts"] >= 0 and e["dur"] >= 0 for e in spans)
    threads = {(e["pid"], e["tid"]) for e in document["traceEvents"] if e["name"] == "thread_name"}
    assert {(event["pid"], event["tid"]) for event in spans} <= threads


def test_page_reads_nothing_private_but_for_differences_of_a_revealed_input(
    digits_run: Run, tmp_path: Path
) -> None:
    """Without the private objects the page is the same, but for accuracy by boundary."""
    store = tmp_path / "store"
    shutil.copytree(digits_run.store.removeprefix("file://"), store)
    private = store / f"projects/{digits_run.project}/runs/{digits_run.run_id}/private"
    hidden = {
        checkpoint.boundary: checkpoint.values
        for path in private.glob("boundary-*.json")
        if (checkpoint := BoundaryCheckpoint.parse(path.read_bytes(), what="it"))
    }
    shutil.rmtree(private)
    text, facts = page_of(open_store(str(store)), digits_run.run_id, digits_run.project)
    assert "VERIFIED" in text and "element 7" in text
    assert "Boundary by boundary: it cannot be computed here" in text
    revealed = facts.revealed()
    assert {*revealed} < {*hidden}
    for name, values in hidden.items():
        shown = [", ".join(map(str, values[i : i + 4])) for i in range(0, len(values), 4)]
        assert name in revealed or not any(entry in text for entry in shown)


def test_hidden_input_is_not_shown_and_nothing_is_computed_of_it(
    models: Path, tmp_path: Path
) -> None:
    prove_here(
        models / "mlp.onnx", store=tmp_path, run_id="hidden", options=SMALL, private_input=True
    )
    store = open_store(str(tmp_path))
    text, facts = page_of(store, "hidden")
    page = assert_needs_nothing(text)
    assert "input hidden" in page.text and "Committed to, not shown" in page.text
    assert list(facts.revealed()) == list(facts.plan.model_outputs if facts.plan else ())
    assert boundary_accuracy(facts, store).boundaries == ()
    assert not any(tag == "img" for tag, _ in page.tags)


def test_hostile_names_are_text_everywhere(tmp_path: Path) -> None:
    store, run_id = hostile_run(tmp_path)
    text, _ = page_of(open_store(str(store)), run_id)
    page = assert_needs_nothing(text)
    assert "VERIFIED" in page.text
    for name in HOSTILE:
        assert " ".join(name.split()) in page.text, name


def test_failed_run_says_so_without_the_value_that_made_it_fail(
    models: Path, tmp_path: Path
) -> None:
    store, run_id = failed_run(models / "mlp.onnx", tmp_path)
    opened = open_store(str(store))
    text, facts = page_of(opened, run_id)
    page = assert_needs_nothing(text)
    assert facts.state == "failed" and facts.verdict is None
    assert "FAILED" in page.text and "zkml-ray resume failed" in page.text
    assert "value is outside the range" in page.text
    logs = [key for key in opened.keys("") if names.EVENTS in key]
    assert len(logs) == 1
    kept = opened.get(logs[0], max_bytes=1 << 20)
    assert EventLog.parse(kept, what="log").outcome == "failed"
    for shown in ("1.2345", "1.23457e+07", "12345678"):
        assert shown not in text and shown.encode() not in kept


def test_tampered_run_is_refused_on_its_page_and_by_exit_code(
    digits_run: Run, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(digits_run.store.removeprefix("file://"), store)
    proof = next(
        (store / f"projects/{digits_run.project}/runs/{digits_run.run_id}/proofs").iterdir()
    )
    data = bytearray(proof.read_bytes())
    data[len(data) // 2] ^= 1
    proof.write_bytes(data)
    out = tmp_path / "page.html"
    done = run_here(
        "report", digits_run.run_id, "--project", digits_run.project, "--store", store, "--out", out
    )
    assert done.code == 1
    page = assert_needs_nothing(out.read_text(encoding="utf-8"))
    assert "REFUSED" in page.text and "Nothing below is proved" in page.text
    assert not any(attributes.get("class") == "mark-checked" for tag, attributes in page.tags[:-8])


def test_command_writes_page_and_trace_and_keeps_them_in_the_store(
    digits_run: Run, tmp_path: Path, digits: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(digits_run.store.removeprefix("file://"), store)
    out, trace = tmp_path / "page.html", tmp_path / "trace.json"
    done = run_here(
        "report", digits_run.run_id, "--project", digits_run.project, "--store", store,
        "--out", out, "--trace", trace, "--model", digits / "digits.onnx", "--json",
    )  # fmt: skip
    assert done.code == 0 and done.json["state"] == "verified"
    opened, layout = open_store(str(store)), RunLayout(digits_run.project, digits_run.run_id)
    assert opened.get(layout.run_key(names.REPORT), max_bytes=1 << 24) == out.read_bytes()
    assert opened.get(layout.run_key(names.TRACE), max_bytes=1 << 24) == trace.read_bytes()
    assert "Trust root: the model file" in out.read_text(encoding="utf-8")
    gone = run_here(
        "rm", digits_run.run_id, "--project", digits_run.project, "--store", store, "--yes"
    )
    assert gone.code == 0
    assert not list(opened.keys(layout.run_key(""))), "a removed run's report goes with it"


def test_report_of_no_run_is_one_line(tmp_path: Path) -> None:
    done = run_here("report", "nothing", "--store", tmp_path, "--out", tmp_path / "page.html")
    assert done.code == 2 and len(done.errors) == 1 and "no run nothing" in done.errors[0]
    assert not (tmp_path / "page.html").exists()


def test_page_of_500_chunks_is_whole_and_small_enough_to_mail(
    digits_run: Run, tmp_path: Path
) -> None:
    store, run_id = large_run(
        Path(digits_run.store.removeprefix("file://")),
        digits_run.project,
        digits_run.run_id,
        500,
        tmp_path,
    )
    text, _ = page_of(open_store(str(store)), run_id)
    page = assert_needs_nothing(text)
    details = [a for tag, a in page.tags if tag == "details" and a.get("class") == "boundary"]
    assert len(details) == 501
    assert "REFUSED" in page.text
    assert len(text.encode()) < 5 << 20
