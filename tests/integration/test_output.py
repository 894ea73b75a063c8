"""What commands print: the verdict first, once what is said once, and questions before losses."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.command import run_here
from tests.soundness.here import prove_here
from zkml_ray import PlanOptions
from zkml_ray.command_line import cli
from zkml_ray.command_line.tables import folded

DIGEST = re.compile(r"[0-9a-f]{64}")
TRUST = ("--allow-insecure-srs",)


@pytest.fixture(scope="module")
def store(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a run of four chunks and one of one chunk."""
    folder = tmp_path_factory.mktemp("output") / "store"
    by_layer = PlanOptions(scale=8, layers_per_chunk=1)
    prove_here(models / "residual.onnx", store=folder, run_id="four", options=by_layer)
    whole = PlanOptions(scale=8, layers_per_chunk=1 << 20)
    prove_here(models / "mlp.onnx", store=folder, run_id="one", options=whole)
    return folder


@pytest.fixture(scope="module")
def digest(store: Path) -> str:
    rows = run_here("runs", "--store", store, "--json").json["runs"]
    return next(row["plan_digest"] for row in rows if row["run_id"] == "four")


def on_terminal(arguments: list[str], *, answer: str = "", columns: int = 80) -> tuple[int, str]:
    """Run the command on a real terminal: exit code, and what it shows."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "zkml_ray.command_line.cli", *arguments],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**os.environ, "COLUMNS": str(columns), "TERM": "xterm-256color"},
        close_fds=True,
    )
    os.close(follower)
    if answer:
        os.write(leader, answer.encode())
    shown = b""
    while True:
        try:
            block = os.read(leader, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not block:
            break
        shown += block
    os.close(leader)
    return process.wait(timeout=60), shown.decode().replace("\r\n", "\n")


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)


def test_verdict_comes_first_and_everything_once(store: Path, digest: str) -> None:
    done = run_here("verify", "four", "--store", store, "--plan-digest", digest, *TRUST)
    lines = done.stdout.splitlines()
    assert lines[0] == "VERIFIED run four of project default"
    assert DIGEST.findall(done.stdout) == [digest]
    assert done.stdout.count("INSECURE") == 1 and done.stdout.count("forge") == 1
    assert "  ok  " not in done.stdout


def test_quiet_is_the_verdict_alone_and_verbose_lists_what_was_checked(
    store: Path, digest: str
) -> None:
    arguments = ("verify", "four", "--store", store, "--plan-digest", digest, *TRUST)
    assert run_here(*arguments, "-q").stdout == "VERIFIED run four of project default\n"
    verbose = run_here(*arguments, "--verbose").stdout.splitlines()
    assert verbose[0].startswith("VERIFIED")
    assert sum(line.startswith("  ok  ") for line in verbose) > 5
    both = run_here(*arguments, "-q", "-v")
    assert both.code == 2 and both.errors == ["error: --quiet and --verbose exclude each other"]


def test_terminal_gets_colour_and_whole_words_a_pipe_neither(store: Path, digest: str) -> None:
    arguments = ["verify", "four", "--store", str(store), "--plan-digest", digest, *TRUST]
    code, shown = on_terminal(arguments, columns=72)
    assert code == 0 and "\x1b[1;32mVERIFIED" in shown
    lines = plain(shown).splitlines()
    assert max(map(len, lines)) <= 72
    piped = run_here(*arguments).stdout
    assert "\x1b" not in piped
    assert plain(shown).split() == piped.split() or DIGEST.search(piped), "no word is cut"
    words = {word for word in piped.split() if len(word) <= 60}
    assert words <= set(plain(shown).split())


def test_error_is_red_on_a_terminal_and_one_plain_line_in_a_pipe(store: Path) -> None:
    arguments = ["verify", "nothing", "--store", str(store), "--plan-digest", "0" * 64]
    code, shown = on_terminal(arguments)
    assert code == 2 and "\x1b[1;31merror:" in shown
    done = run_here(*arguments)
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "command",
    [
        ["runs"],
        ["gc"],
        ["rm", "four"],
        ["show", "four"],
        ["compare", "four", "one"],
        ["report", "four"],
        ["fetch", "four", "folder"],
        ["open", "four", "--boundary", "h", "--index", "0"],
    ],
    ids=lambda command: command[0],
)
def test_store_that_is_not_there_is_an_error_and_stays_so(
    tmp_path: Path, command: list[str]
) -> None:
    done = run_here(*command, "--store", tmp_path / "nowhere")
    assert done.code == 2 and len(done.errors) == 1
    assert f"there is no store {tmp_path / 'nowhere'}" in done.errors[0]
    assert list(tmp_path.iterdir()) == []


def test_complete_run_is_removed_after_a_yes_alone(store: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(store, tmp_path / "store")
    manifest = mine / "projects/default/runs/four/manifest.json"
    done = run_here("rm", "four", "--store", mine)
    assert done.code == 2 and "--yes" in done.errors[0] and manifest.is_file()
    code, shown = on_terminal(["rm", "four", "--store", str(mine)], answer="n\n")
    assert code == 2 and "Remove it?" in shown and manifest.is_file()
    code, shown = on_terminal(["rm", "four", "--store", str(mine)], answer="y\n")
    assert code == 0 and not manifest.exists()
    assert run_here("rm", "one", "--store", mine, "--yes").code == 0


def test_run_under_way_is_removed_without_a_question(models: Path, tmp_path: Path) -> None:
    from zkml_ray.api import prepare

    prepare(models / "mlp.onnx", store=tmp_path, run_id="begun")
    assert run_here("rm", "begun", "--store", tmp_path).code == 0


def test_opening_says_what_it_shows_before_it_is_written(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "opening.json"
    done = run_here(
        "open", "four", "--store", store, "--boundary", "h", "--index", "2", "--out", out
    )
    told, wrote = done.stderr.splitlines()
    assert told == (
        "this opening shows the whole leaf, 6 elements (0 to 5), not element 2 alone, of boundary "
        "h, to whoever has it"
    )
    assert wrote.startswith(f"wrote {out}: leaf 0 of h, 6 elements")
    manifest = store / "projects/default/runs/four/manifest.json"
    checked = run_here("verify-opening", out, "--manifest", manifest)
    assert checked.stdout.splitlines()[0] == "OPENED elements 0..5 of boundary h of run four"
    assert run_here("verify-opening", out, "--manifest", manifest, "--json").json["boundary"] == "h"


def test_inner_boundary_of_a_run_of_one_chunk_has_a_hint(store: Path) -> None:
    done = run_here("open", "one", "--store", store, "--boundary", "h0", "--index", "0")
    assert done.code == 2 and "prove it with --layers-per-chunk 1" in done.errors[0]
    other = run_here("open", "four", "--store", store, "--boundary", "h0", "--index", "0")
    assert "--layers-per-chunk" not in other.errors[0]


def test_one_is_one(store: Path, tmp_path: Path) -> None:
    rows = run_here("runs", "--store", store, "--json").json["runs"]
    one = next(row["plan_digest"] for row in rows if row["run_id"] == "one")
    for command in (
        ["runs"],
        ["show", "one"],
        ["export", "one", "--ezkl", str(tmp_path / "ezkl")],
        ["verify", "one", "--plan-digest", one, *TRUST, "-v"],
    ):
        text = run_here(*command, "--store", store).stdout
        assert "1 chunk" in text or "1 proof" in text
        assert not re.search(
            r"\b1 (chunks|workers|boundaries|leaves|elements|proofs|files|objects)\b", text
        ), text


@pytest.mark.parametrize("folder", ["plain", "with space", "it's"])
def test_command_that_export_prints_works_as_pasted(
    store: Path, tmp_path: Path, folder: str
) -> None:
    done = run_here("export", "one", "--ezkl", tmp_path / folder, "--store", store)
    (command,) = [line.strip() for line in done.stdout.splitlines() if "python -c" in line]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    said = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment)
    assert said.stdout.strip() == "True", said.stderr


@pytest.mark.parametrize("place", ["new", "new/deeper/still", "there"])
def test_doctor_leaves_nothing(tmp_path: Path, place: str) -> None:
    (tmp_path / "there").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert run_here("doctor", "--store", tmp_path / place).code == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_version_has_a_short_option() -> None:
    assert run_here("-V").stdout == run_here("--version").stdout


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["prove"], "zkml-ray prove"),
        (["verify", "x", "--bogus"], "zkml-ray verify"),
        (["gc", "--older-than", "soon"], "zkml-ray gc"),
        (["bogus"], "zkml-ray"),
    ],
)
def test_usage_error_names_the_command_whose_help_helps(arguments: list[str], command: str) -> None:
    done = run_here(*arguments)
    assert done.code == 2
    assert done.errors[0].endswith(f"({command} --help shows the usage)")


def test_help_stands_in_panels_and_shows_brackets() -> None:
    shown = run_here("verify", "--help").stdout
    for panel in ("Arguments", "Options", "Store", "Trust", "Demands"):
        assert f"╭─ {panel} " in shown
    assert "[any]" in " ".join(run_here("prove", "--help").stdout.split())
    summaries = run_here("--help").stdout.partition("Commands")[2]
    assert "..." not in summaries and "…" not in summaries, "no summary is cut"
    assert len(cli.app.registered_commands) > 15


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("zkml-ray ver", {"verify", "verify-opening"}),
        ("zkml-ray verify --plan-d", {"--plan-digest"}),
    ],
)
def test_bash_completes_commands_and_options(words: str, expected: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "zkml_ray.command_line.cli"],
        env={
            **os.environ,
            "_ZKML_RAY_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
        capture_output=True,
        text=True,
    )
    assert set(done.stdout.split()) == expected, done.stderr


@pytest.mark.parametrize(
    ("operators", "expected"),
    [
        (["Conv", "Relu"], "Conv Relu"),
        (["Gemm", "Relu"] * 20, "Gemm x20 Relu x20"),
        ([*"ABCDEFGHA"], "A x2 B C D E F and 2 more"),
    ],
)
def test_operators_fold(operators: list[str], expected: str) -> None:
    assert folded(operators) == expected
