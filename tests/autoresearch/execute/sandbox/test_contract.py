"""Every backend keeps the contract, as far as it says."""

import pytest

from autoresearch.errors import UserError
from autoresearch.execute import sandbox as sandboxes
from autoresearch.execute.sandbox import Sandbox, create_sandbox, describe
from autoresearch.registry import Registry
from autoresearch.testing.sandboxes import SandboxContract
from tests.support.jail import sandbox_or_skip

pytestmark = pytest.mark.slow


class TestBwrap(SandboxContract):
    @pytest.fixture
    def sandbox(self) -> Sandbox:
        return sandbox_or_skip("bwrap")


class TestLandlock(SandboxContract):
    @pytest.fixture
    def sandbox(self) -> Sandbox:
        return sandbox_or_skip("landlock")


class TestLandlockWithoutNamespaces(SandboxContract):
    @pytest.fixture
    def sandbox(self) -> Sandbox:
        return sandbox_or_skip("landlock-bare")


class TestNone(SandboxContract):
    promises = ("daemons",)

    @pytest.fixture
    def sandbox(self) -> Sandbox:
        return create_sandbox("none")


def test_none_is_told_loudly() -> None:
    report = describe(create_sandbox("none"))
    assert report.warning.startswith("Candidates run without protection (sandbox: none)")
    assert {p.name for p in report.protections if p.held} == {
        "nothing outlives a trial",
        "use of the machine is limited",
    }


def test_another_package_s_sandbox_is_taken_only_if_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried by the same intruder as those that are shipped."""
    shipped = {**sandboxes.BACKENDS, "mine": f"{__name__}:OpenSandbox"}
    monkeypatch.setattr(sandboxes, "SANDBOXES", Registry("sandbox", shipped))
    with pytest.raises(UserError, match="mine does not work here"):
        create_sandbox("mine")


class OpenSandbox:
    """Confines nothing, and claims to."""

    name = "mine"
    means = create_sandbox("none").means
    wrap = staticmethod(create_sandbox("none").wrap)
