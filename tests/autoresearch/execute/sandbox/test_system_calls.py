"""The seccomp program, run by a small interpreter: right for every call number, on both architectures."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.execute.sandbox import system_calls

HEADERS = {
    0: Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    1: Path("/usr/include/asm-generic/unistd.h"),
}
RULES = {
    (machine, namespaces): system_calls.rules(column, memory_files=False, namespaces=namespaces)
    for machine, (_, column) in system_calls.ARCHITECTURES.items()
    for namespaces in (True, False)
}
CHECKED = sorted({number for rules in RULES.values() for rule in rules for number in rule.numbers if number})
NUMBERS = st.integers(0, 600) | st.integers(0, 2**32 - 1) | st.sampled_from(CHECKED)
VALUES = sorted({value for rules in RULES.values() for r in rules for t in r.tests for value in t.values})
WORDS = st.integers(0, 8) | st.integers(0, 2**64 - 1) | st.sampled_from(VALUES)


def interpret(program: list[bytes], data: bytes) -> int:
    """Run classic BPF over one `struct seccomp_data`."""
    accumulator, at = 0, 0
    while True:
        code, yes, no, value = struct.unpack("=HBBI", program[at])
        at += 1
        if code == system_calls.LOAD:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == system_calls.AND:
            accumulator &= value
        elif code == system_calls.RETURN:
            return int(value)
        else:
            test = {
                system_calls.JUMP_EQUAL: accumulator == value,
                system_calls.JUMP_GREATER_EQUAL: accumulator >= value,
            }[code]
            at += yes if test else no


def call(architecture: int, number: int, arguments: tuple[int, ...]) -> bytes:
    return struct.pack("=IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))


def expected(rules: list[system_calls.Rule], column: int, number: int, arguments: tuple[int, ...]) -> int:
    """What the first rule says all of whose tests hold."""
    for rule in rules:
        if rule.numbers[column] == number and all(
            (arguments[test.argument] & test.mask in test.values) is test.equal for test in rule.tests
        ):
            return rule.action
    return system_calls.ALLOW


@pytest.mark.parametrize(("machine", "namespaces"), RULES)
@given(number=NUMBERS, arguments=st.tuples(*[WORDS] * 4))
def test_every_call_gets_what_the_rules_say(
    machine: str, namespaces: bool, number: int, arguments: tuple[int, ...]
) -> None:
    architecture, column = system_calls.ARCHITECTURES[machine]
    rules = RULES[machine, namespaces]
    program = system_calls.make_program(architecture, column, rules)
    action = system_calls.KILL if number >= 0x40000000 else expected(rules, column, number, arguments)
    assert interpret(program, call(architecture, number, arguments)) == action
    assert interpret(program, call(architecture ^ 1, number, arguments)) == system_calls.KILL


NAMED = {"clone": (56, 220), "clone3": (435, 435), "socketpair": (53, 199), "madvise": (28, 233)}
NAMED |= {"fcntl": (72, 25), "open": (2, None), "openat": (257, 56), "ioctl": (16, 29), "prctl": (157, 167)}
NAMED |= {"creat": (85, None), "mknod": (133, None), "mknodat": (259, 33)}
NAMED |= {"prlimit64": (302, 261), "sched_setaffinity": (203, 122)}
NAMED |= {"setrlimit": (160, 164), "fallocate": (285, 47), "mmap": (9, 222)}


@pytest.mark.parametrize("column", HEADERS)
def test_call_numbers_are_the_kernel_s(column: int) -> None:
    if not HEADERS[column].exists():
        pytest.skip("no kernel headers on this machine")
    known = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", HEADERS[column].read_text()))
    tables = (system_calls.DENIED, system_calls.MEMORY_FILES, system_calls.SHARED, system_calls.UNCONFINED)
    tables = (*tables, system_calls.HINTS, system_calls.FLAGGED, NAMED)
    for name, numbers in {name: numbers for table in tables for name, numbers in table.items()}.items():
        if name in known:
            assert numbers[column] == int(known[name]), name
    with_tests = {rule.numbers for rule in RULES["x86_64", False] if rule.tests}
    assert with_tests <= set(NAMED.values())
