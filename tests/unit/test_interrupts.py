"""Signals become exceptions where they can be borne. Each case in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, os, signal, sys, threading
from zkml_ray import interrupts
SIGNAL = int(sys.argv[1])
def case_plain():
    os.kill(os.getpid(), SIGNAL)
    while True: pass
def case_shielded():
    with interrupts.shielded():
        os.kill(os.getpid(), SIGNAL)
        for _ in range(10**5): pass
        print("kept", flush=True)
    print("lost")
def case_nested():
    with interrupts.shielded():
        with interrupts.shielded():
            os.kill(os.getpid(), SIGNAL)
            for _ in range(10**5): pass
        print("kept", flush=True)
    print("lost")
def case_clean_up():
    try:
        os.kill(os.getpid(), SIGNAL)
        while True: pass
    finally:
        os.kill(os.getpid(), SIGNAL)
        for _ in range(10**5): pass
        print("kept", flush=True)
def case_swallowed():
    class Swallows:
        def __del__(self):
            os.kill(os.getpid(), SIGNAL)
            for _ in range(10**5): pass
    Swallows()
    print("kept", flush=True)
    with interrupts.shielded():
        print("lost")
def case_replaced():
    library, done = ctypes.CDLL(None), threading.Event()
    library.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    def start():
        with interrupts.kept_handlers():
            library.signal(SIGNAL, 0)  # the default: ends the process
        done.set()
    thread = threading.Thread(target=start); thread.start(); thread.join()
    print("kept", flush=True)
    case_plain()
with interrupts.as_exceptions():
    globals()["case_" + sys.argv[2]]()
"""

CASES = ["plain", "shielded", "nested", "clean_up", "swallowed", "replaced"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_signal_ends_a_program_with_its_number_and_never_inside_a_shield(
    number: signal.Signals, case: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(int(number)), case],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    # Python itself ends by the signal where nobody caught a KeyboardInterrupt.
    expected = 143 if number is signal.SIGTERM else -signal.SIGINT
    assert done.returncode == expected, done.stderr
    assert done.stdout.split() == ([] if case == "plain" else ["kept"])


def test_a_callers_own_handler_stays() -> None:
    program = (
        "import os, signal\nfrom zkml_ray import interrupts\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('mine'))\n"
        "with interrupts.as_exceptions():\n    os.kill(os.getpid(), signal.SIGTERM)\n"
        "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["mine", "True"], done.stderr
