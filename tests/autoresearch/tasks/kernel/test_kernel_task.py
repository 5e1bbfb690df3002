"""The task `kernel` keeps the contract, reads its options, and compares two C programs."""

from pathlib import Path

import pytest

from autoresearch.errors import Refused, UserError
from autoresearch.tasks.base import Task
from autoresearch.testing.tasks import TaskContract
from tests.support.kernels import C_FAST, C_SLOW, C_SPEC, make_task, write_tree

C = ("task.editable=[kernel.c]",)


@pytest.mark.slow
class TestKernelTask(TaskContract):
    broken = ("kernel.c", "void kernel(long *x) { /* this does not end")
    crashing = ("kernel.c", "#error this does not compile\nvoid kernel(void) {}\n")
    remark = "\n/* a remark */  // and another\n\n"

    @pytest.fixture
    def task(self) -> Task:
        return make_task(*C)

    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        return write_tree(tmp_path / "tree", C_SLOW, C_SPEC, "kernel.c")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("void kernel(void) { return; ", "line 1: '{' is not closed"),
        ("void kernel(void) {\n return; )", "line 2: ')' closes nothing"),
        ("void kernel(void) {} /* on and on", "the comment does not end"),
        ("void other(void) {}", "does not hold the function kernel"),
        (C_SLOW + "\n// only a remark\n", "nothing is changed"),
        ("", "cannot be deleted or emptied"),
        (C_SLOW.replace("x[i] < k", "x[i] <\u200b k"), "invisible"),
    ],
)
def test_what_cannot_be_a_better_kernel_is_refused(text: str, says: str) -> None:
    with pytest.raises(Refused) as refused:
        make_task(*C).validate({"kernel.c": C_SLOW}, {"kernel.c": text})
    assert says in str(refused.value)


def test_layout_and_comments_of_c_are_no_change_and_text_in_quotes_is_one() -> None:
    task = make_task(*C)

    def same(one: str, other: str) -> bool:
        return task.fingerprint({"kernel.c": one}) == task.fingerprint({"kernel.c": other})

    assert same(C_SLOW, C_SLOW.replace("    ", "\t").replace("/* eight passes over the data */", "// x"))
    assert not same('char *a = "/* b */";', 'char *a = "/* c */";')
    assert not same("#define A 1\nint a;", "#define A 1 int a;"), "a line break ends a preprocessor line"
    assert task.growth({"kernel.c": C_SLOW}, {"kernel.c": C_FAST}) == 1
    task.validate({"kernel.c": C_SLOW}, {"kernel.c": C_FAST})


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("task.spec=kernel.c", "is editable too"),
        ("budget.pairs=1", "budget.pairs must be 4 or more"),
        ("task.function=a-b", "task.function"),
        ("budget=smoke", "budget."),
    ],
)
def test_a_wrong_option_is_named(override: str, says: str) -> None:
    with pytest.raises(UserError) as told:
        make_task(*C, override)
    assert says in str(told.value)
