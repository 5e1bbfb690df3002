"""The seccomp program, run by a small interpreter: right for every call number, on both architectures."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.execute.sandbox import restrictions

HEADERS = {
    0: Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    1: Path("/usr/include/asm-generic/unistd.h"),
}
NUMBERS = st.integers(0, 600) | st.integers(0, 2**32 - 1)


def interpret(program: list[bytes], data: bytes) -> int:
    """Run classic BPF over one `struct seccomp_data`."""
    accumulator, at = 0, 0
    while True:
        code, yes, no, value = struct.unpack("=HBBI", program[at])
        at += 1
        if code == restrictions.LOAD:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == restrictions.AND:
            accumulator &= value
        elif code == restrictions.RETURN:
            return int(value)
        else:
            test = {
                restrictions.JUMP_EQUAL: accumulator == value,
                restrictions.JUMP_GREATER_EQUAL: accumulator >= value,
                restrictions.JUMP_ANY_BIT: bool(accumulator & value),
            }[code]
            at += yes if test else no


def call(architecture: int, number: int, first: int = 0, second: int = 0) -> bytes:
    return struct.pack("=IIQ6Q", number, architecture, 0, first, second, *[0] * 4)


ONLY = restrictions.PAIRS | restrictions.OWN
WORDS = st.integers(0, 8) | st.integers(0, 2**32 - 1)
CHECKED = st.sampled_from([number for one in ONLY.values() for number in one.numbers])


@pytest.mark.parametrize("machine", restrictions.ARCHITECTURES)
@given(number=NUMBERS | CHECKED, first=WORDS, second=WORDS)
def test_every_call_gets_what_the_tables_say(machine: str, number: int, first: int, second: int) -> None:
    architecture, column = restrictions.ARCHITECTURES[machine]
    rules = {
        numbers[column]: restrictions.ERRNO | 1 for numbers in restrictions.DENIED.values() if numbers[column]
    }
    only = {one.numbers[column]: one for one in ONLY.values()}
    program = restrictions._program(
        architecture, [*rules.items()], [*only.items()], restrictions.CLONE[column]
    )
    if number >= 0x40000000:
        expected = restrictions.KILL
    elif number == restrictions.CLONE[column]:
        expected = restrictions.ERRNO | 1 if first & restrictions.NEW_NAMESPACES else restrictions.ALLOW
    elif number in only:
        value = (first, second)[only[number].argument] & only[number].mask
        expected = restrictions.ALLOW if value in only[number].allowed else only[number].action
    else:
        expected = rules.get(number, restrictions.ALLOW)
    assert interpret(program, call(architecture, number, first, second)) == expected
    assert interpret(program, call(architecture ^ 1, number, first, second)) == restrictions.KILL


@pytest.mark.parametrize("column", HEADERS)
def test_call_numbers_are_the_kernel_s(column: int) -> None:
    if not HEADERS[column].exists():
        pytest.skip("no kernel headers on this machine")
    known = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", HEADERS[column].read_text()))
    tables = restrictions.DENIED | restrictions.MEMORY_FILES | restrictions.SHARED | restrictions.UNCONFINED
    tables |= {"clone": restrictions.CLONE, **{name: one.numbers for name, one in ONLY.items()}}
    for name, numbers in tables.items():
        if name in known:
            assert numbers[column] == int(known[name]), name
    assert int(known["clone3"]) == restrictions.CLONE3
