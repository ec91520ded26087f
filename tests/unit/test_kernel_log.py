"""What the kernel's log says of processes that were killed for want of memory."""

from __future__ import annotations

import os

import pytest

from kasmos.model.session import ExitStatus
from kasmos.sessions.kernel_log import names, read_records, was_short_of_memory
from kasmos.sessions.processes import ProcessId, read_entry

KILLED = b"3,901,23937182261,-;Memory cgroup out of memory: Killed process 20609 (python3) total-vm:1061092kB, UID:0\n"
SUMMARY = (
    b"6,900,23937182252,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),task_memcg=/a,task=python3,"
    b"pid=20609,uid=0\n"
)
OTHERS = b"6,899,23937182240,-;[  20609]     0 20609   265273    13678    12224     1454 python3\n"
CONTINUED = b"6,902,23937182300,-;something\n SUBSYSTEM=usb\n"


@pytest.mark.parametrize("record", [KILLED, SUMMARY])
def test_named(record: bytes) -> None:
    """Either of the kernel's lines names who was killed; of another process, or an earlier one, they say nothing."""
    records = [OTHERS, CONTINUED, record]
    assert names(records, 20609, since=23900.0)
    assert not names(records, 2060, since=23900.0)
    assert not names(records, 20609, since=23938.0)
    assert not names([OTHERS, CONTINUED], 20609, since=0.0)


def test_all_records_are_read() -> None:
    """The log is read record by record to its end, and nothing is waited for."""
    reader, writer = os.pipe2(os.O_DIRECT | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        for record in (OTHERS, SUMMARY, KILLED):
            os.write(writer, record)
        assert read_records(reader) == [OTHERS, SUMMARY, KILLED]
    finally:
        os.close(reader)
        os.close(writer)


def test_status() -> None:
    """What is told of such a program says why it was killed."""
    assert str(ExitStatus(signal=9, out_of_memory=True)) == "killed by SIGKILL: the kernel was out of memory for it"


def test_log_that_cannot_be_read() -> None:
    """Where the log may not be read, nothing is known; of a process that runs, the log says nothing."""
    entry = read_entry(os.getpid())
    assert entry is not None
    assert not was_short_of_memory(entry.id, "/nowhere")
    assert not was_short_of_memory(ProcessId(entry.id.pid, entry.id.start))
