"""Signals: one line, a stop of all threads, and nothing published afterwards."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from hubmerge.support import child_signals, interrupts

PROGRAM = """
import sys, threading, time
from hubmerge.support import interrupts
{settings}
with interrupts.handled(program=True):
    try:
        print("ready", flush=True)
        {body}
    except KeyboardInterrupt:
        interrupts.settle()
        print("cleaning up", flush=True)
        {cleanup}
        sys.exit(130)
"""


def program(body: str, cleanup: str = "pass", *, settings: str = "") -> subprocess.Popen[str]:
    """Start a program and wait until it does what `body` says; `settings` are made before."""
    text = PROGRAM.format(body=body, cleanup=cleanup, settings=settings)
    process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def interrupted(work: Callable[[], object], **options: bool) -> None:
    """Call `work` with the signals handled, and expect KeyboardInterrupt."""

    def call() -> None:
        with interrupts.handled(**options):
            work()

    with pytest.raises(KeyboardInterrupt):
        call()


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def default_handlers() -> Iterator[None]:
    """Give the signals their handlers in a program started from a terminal."""
    earlier = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    for number in interrupts.SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in earlier.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_the_first_signal_prints_one_line_and_stops_all_threads(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        try:
            send(number)
            threading.Event().wait(60)
        finally:
            interrupts.settle()
            with pytest.raises(KeyboardInterrupt):
                waiting.result()

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(interrupts.wait, 60)
        interrupted(interrupt)
    assert capsys.readouterr().err == f"{interrupts.STOPPING}\n"
    assert not interrupts.requested(), "the next call begins anew"
    assert signal.getsignal(number) in {signal.SIG_DFL, signal.default_int_handler}


def test_nothing_is_published_after_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[str] = []

    def publish() -> None:
        try:
            with interrupts.publishing():
                send(signal.SIGINT)
                shown.append(capsys.readouterr().err)
        finally:
            interrupts.settle()
            shown.append(capsys.readouterr().err)
            with pytest.raises(KeyboardInterrupt), interrupts.publishing():
                shown.append("published")

    interrupted(publish)
    assert shown == ["", f"{interrupts.STOPPING}\n"]


def test_a_request_that_lasts_is_named_in_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    sending, sent = threading.Event(), threading.Event()

    def publish() -> None:
        with interrupts.publishing():
            sending.set()
            sent.wait(60)

    def interrupt() -> None:
        try:
            send(signal.SIGTERM)
            threading.Event().wait(60)
        finally:
            interrupts.settle()
            sent.set()
            future.result()

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(publish)
        sending.wait(60)
        interrupted(interrupt)
    assert capsys.readouterr().err == "stopping after the request that is being sent; press again to stop now\n"


def test_an_interrupt_waits_for_the_end_of_a_delayed_block() -> None:
    done = []

    def work() -> None:
        with interrupts.delayed():
            send(signal.SIGINT)
            done.append("whole")
        done.append("after")

    interrupted(work, quiet=True)
    assert done == ["whole"]


def test_a_process_that_is_told_by_another_one_is_not_interrupted() -> None:
    with interrupts.handled(quiet=True, raises=False):
        send(signal.SIGINT)
        interrupts._requested.wait(60)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()


def test_ignored_signals_and_handlers_of_others_stay() -> None:
    def handler(_number: int, _frame: object) -> None:
        pass

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, handler)
    with interrupts.handled():
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == handler
        send(signal.SIGHUP)
        send(signal.SIGTERM)
        assert not interrupts.requested()


def test_signals_are_passed_on() -> None:
    received: list[int] = []
    with interrupts.handled(), child_signals.forwarded(received.append):
        for number in interrupts.SIGNALS:
            send(number)
    assert received == list(interrupts.SIGNALS)
    assert not interrupts.requested()


def test_other_threads_leave_the_handlers_alone() -> None:
    def enter() -> object:
        with interrupts.handled():
            return signal.getsignal(signal.SIGTERM)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(enter).result() == signal.SIG_DFL


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_a_program_ends_after_its_cleanup(number: int) -> None:
    with program("time.sleep(60)") as process:
        process.send_signal(number)
        output, errors = process.communicate()
    assert (process.returncode, output, errors) == (130, "cleaning up\n", f"{interrupts.STOPPING}\n")


def test_the_second_signal_ends_a_program_at_once() -> None:
    settings = "interrupts.PRESSED_SECONDS = 0.0"
    with program("time.sleep(60)", "threading.Event().wait(60); print('never')", settings=settings) as process:
        assert process.stdout is not None
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "cleaning up\n"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate()
    assert (process.returncode, output) == (130, "")
    assert errors == f"{interrupts.STOPPING}\nhubmerge: stopped\n"


def test_a_program_whose_threads_do_not_stop_ends_too() -> None:
    settings = "interrupts.GRACE_SECONDS = 1.0"
    with program("time.sleep(60)", "threading.Event().wait(60); print('never')", settings=settings) as process:
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate()
    assert (process.returncode, output) == (130, "cleaning up\n")
    assert errors == f"{interrupts.STOPPING}\nhubmerge: interrupted; the next run continues\n"


@pytest.mark.parametrize(
    ("first", "added"),
    [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT)],
)
def test_a_signal_that_a_launcher_adds_is_not_the_second_one(first: int, added: int) -> None:
    settings = "interrupts.SAME_CAUSE_SECONDS = interrupts.PRESSED_SECONDS = 60.0"
    with program("time.sleep(60)", "time.sleep(0.3)", settings=settings) as process:
        assert process.stdout is not None
        process.send_signal(first)
        assert process.stdout.readline() == "cleaning up\n"
        process.send_signal(added)
        output, errors = process.communicate()
    assert (process.returncode, output, errors) == (130, "", f"{interrupts.STOPPING}\n")


def test_a_second_signal_of_another_cause_ends_a_program_at_once() -> None:
    settings = "interrupts.SAME_CAUSE_SECONDS = 0.0"
    with program("time.sleep(60)", "threading.Event().wait(60); print('never')", settings=settings) as process:
        assert process.stdout is not None
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "cleaning up\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate()
    assert (process.returncode, errors) == (130, f"{interrupts.STOPPING}\nhubmerge: stopped\n")


def test_a_repeated_signal_interrupts_the_cleanup_of_a_caller_only_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "SAME_CAUSE_SECONDS", 60.0)

    def work() -> None:
        try:
            send(signal.SIGTERM)
            threading.Event().wait(60)
        finally:
            send(signal.SIGTERM)
            interrupts.settle()
            monkeypatch.setattr(interrupts, "SAME_CAUSE_SECONDS", -60.0)
            with pytest.raises(KeyboardInterrupt):
                send(signal.SIGTERM)

    interrupted(work, quiet=True)


def test_children_do_not_get_the_signals() -> None:
    with child_signals.kept_from_children():
        child = subprocess.Popen(
            [sys.executable, "-c", "print('ready', flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
    assert child.stdout is not None
    child.stdout.readline()
    for number in interrupts.SIGNALS:
        child.send_signal(number)
    child.communicate(b"\n")
    assert child.returncode == 0


def test_threads_that_are_stopped_print_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("concurrent.futures")
    logger.critical("before")
    with interrupts.handled():
        interrupts.request()
        logger.critical("Exception in worker")
    logger.critical("after")
    assert [record.message for record in caplog.records] == ["before", "after"]
