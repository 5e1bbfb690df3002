"""One training process against the runner's side of the protocol, in a real sandbox."""

import math
import os
import time
from dataclasses import replace

import psutil
import pytest

from autoresearch.execute.base import TrialEnded
from autoresearch.execute.load import LoadMeter
from autoresearch.execute.output import classify
from autoresearch.execute.sandbox import Limits, create_sandbox
from autoresearch.tasks.gpt.program import JailedProgram
from autoresearch.tasks.gpt.settings import LaunchOptions, TrainingBudget
from autoresearch.tasks.gpt.training import OWN_TIMEOUT, Training, TrialRecord
from autoresearch.types import Outcome
from tests.support.candidates import HELLO, READY, SUBMIT, WEIGHTS, write_script
from tests.support.gpt import SETTINGS

pytestmark = pytest.mark.slow

LIMITS = Limits(memory_gb=2.0, processes=64, file_gb=0.5, open_files=128)
TOKENS = TrainingBudget("tokens", 1000, max_seconds=20.0)
BEFORE = {"at once": (), "after hello": (HELLO,), "after start": (HELLO, READY)}


def in_every_phase(cases):
    """Parameters (before, case): the first case in every phase, the others after the start; the rest soak."""
    return [
        pytest.param(
            before,
            case,
            id=f"{phase}-{number}",
            marks=[pytest.mark.soak] if number and phase != "after start" else [],
        )
        for number, case in enumerate(cases)
        for phase, before in BEFORE.items()
    ]


FOREVER = "while True: time.sleep(1)\n"
LOG = 'wire.send({"type": "log", "step": %d, "loss": %s, "tokens": %d, "progress": 0.9})\n'


@pytest.fixture
def train(tmp_path):
    """Runs the parts of a training script to its end; gives the record, all progress, and the log."""

    class Trained:
        def __init__(self):
            self.record = TrialRecord()
            self.seen = []

        def __call__(self, *parts, budget=TOKENS, startup=20.0, should_stop=None, load=None):
            code = write_script(tmp_path / "code", *parts)
            (tmp_path / "scratch").mkdir()
            (tmp_path / "train.bin").write_bytes(b"\1\0" * 5000)
            data = os.open(tmp_path / "train.bin", os.O_RDONLY)
            settings = replace(SETTINGS, limits=LIMITS)
            options = LaunchOptions(create_sandbox("auto"), settings, False, "", lambda folder: None)
            candidate = JailedProgram(options, code, tmp_path / "scratch", "nanomodel.train")
            try:
                with candidate:
                    training = Training(
                        candidate, budget, self.record, self.seen.append, load or LoadMeter(), threads=1
                    )
                    training.get_ready({"seed": 7}, startup, lambda: None)
                    training.train(data, should_stop)
            finally:
                os.close(data)
                self.log = candidate.log.text(wait=5.0)
                self.scratch = tmp_path / "scratch"

    return Trained()


def ended(train, *parts, **options):
    with pytest.raises(TrialEnded) as caught:
        train(*parts, **options)
    return caught.value.outcome, str(caught.value)


def test_a_whole_training(train):
    log = LOG % (1, 5.5, 500) + LOG % (3, 4.5, 900)
    train(HELLO, "assert task['seed'] == 7\n", READY, "print('working')\n", log, WEIGHTS, SUBMIT)
    assert train.record.curve == [(0.5, 5.5), (0.9, 4.5)]
    metrics = train.record.metrics
    assert metrics["steps"] == 3 and metrics["tokens"] == 900 and metrics["train_seconds"] > 0
    assert metrics["tokens_per_second"] == pytest.approx(900 / metrics["train_seconds"])
    assert (train.scratch / "weights.pt").read_bytes() == b"weights"
    assert train.log == "working\n"


def test_the_candidate_gets_the_data_at_the_start_and_not_before(train):
    listing = "fd = '/proc/self/fd/%d'\n"
    listing += "print([os.readlink(fd % i) for i in range(99) if os.path.lexists(fd % i)])\n"
    after = "print(len(os.pread(data, 99999, 0)))\n"
    train(HELLO, listing, READY, after, WEIGHTS, SUBMIT)
    before, size = train.log.splitlines()
    assert "train.bin" not in before and size == "10000"


def test_the_environment_holds_nothing_of_the_host(train, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    monkeypatch.setenv("ANYTHING", "else")
    train(HELLO, "print(json.dumps(dict(os.environ)))\n", READY, WEIGHTS, SUBMIT)
    assert "secret" not in train.log and "ANYTHING" not in train.log
    assert str(train.scratch) in train.log and "TORCHINDUCTOR_CACHE_DIR" in train.log


CRASHES = [
    ("raise ValueError('mine')\n", "error: ValueError: mine"),
    ("import nothing_like_it\n", "import error: ModuleNotFoundError: No module named 'nothing_like_it'"),
    ("os.kill(os.getpid(), signal.SIGSEGV)\n", "killed: SIGSEGV"),
    ("print('bye'); sys.exit(0)\n", "ended before it submitted, after: bye"),
    ("os._exit(3)\n", "ended with status 3 before it submitted, and printed nothing"),
]


@pytest.mark.parametrize(("before", "case"), in_every_phase(CRASHES))
def test_a_crash_in_any_phase_says_why(train, before, case):
    crash, reason = case
    assert ended(train, *before, crash) == (Outcome.CRASH, reason)


@pytest.mark.parametrize("deed", ["open('/usr/mine', 'w')\n", "__import__('socket').socket()\n"])
def test_what_the_sandbox_refuses_is_named(train, deed):
    outcome, reason = ended(train, HELLO, deed)
    assert outcome is Outcome.CRASH and classify(reason) == "refused by the sandbox", reason


def test_a_syntax_error_is_named(train):
    assert ended(train, "def f(:\n")[1].startswith("syntax error: SyntaxError:")


@pytest.mark.parametrize("before", [(), (HELLO,)])
def test_hanging_before_ready_is_a_crash(train, before):
    outcome, reason = ended(train, *before, FOREVER, startup=0.7)
    assert outcome is Outcome.CRASH and reason.startswith("timeout: not ready after 0.7 s")
    assert any(p.phase == "start-up" for p in train.seen)


def test_overrunning_a_seconds_budget_is_invalid(train):
    outcome, reason = ended(train, HELLO, READY, FOREVER, budget=TrainingBudget("seconds", 0.3, 0.3))
    assert outcome is Outcome.INVALID and reason.startswith("timeout: nothing submitted within 0.3 s")


def test_a_late_submission_is_invalid(train):
    late = "time.sleep(0.8)\n"
    assert (
        ended(train, HELLO, READY, late, WEIGHTS, SUBMIT, budget=TrainingBudget("seconds", 0.3, 0.3))[0]
        is Outcome.INVALID
    )


def test_overrunning_the_cap_of_a_token_budget_is_a_crash(train):
    counts = "while True: time.sleep(0.1); " + LOG % (1, 2.0, 1)  # falsely
    outcome, reason = ended(train, HELLO, READY, counts, budget=TrainingBudget("tokens", 1000, 0.5))
    assert outcome is Outcome.CRASH and reason.startswith("timeout: not done after 0.5 s")
    assert (
        "stopped at step 1" in reason
        and "of its budget)" in reason
        and "(limit by budget.max_seconds)" in reason
    )


class Full(LoadMeter):
    """A machine whose cores others use up."""

    full = True


@pytest.mark.parametrize("waits", [True, False])
def test_time_that_others_took_does_not_count_and_a_sleep_does(train, monkeypatch, waits):
    if waits:
        monkeypatch.setattr(JailedProgram, "waited_seconds", property(lambda program: time.monotonic()))
    parts, budget = (HELLO, READY, "time.sleep(0.9)\n", WEIGHTS, SUBMIT), TrainingBudget("tokens", 1000, 0.5)
    if waits:
        train(*parts, budget=budget, load=Full())
        assert train.record.metrics["train_seconds"] > 0.5
    else:
        assert OWN_TIMEOUT.match(ended(train, *parts, budget=budget, load=Full())[1])


def test_cpu_time_counts_whoever_else_computes(train):
    busy = LOG % (7, 2.0, 450) + "while True: pass\n"
    budget = TrainingBudget("tokens", 1000, 60.0, max_cpu_seconds=0.4)
    outcome, reason = ended(train, HELLO, READY, busy, budget=budget, load=Full())
    assert outcome is Outcome.CRASH and reason.startswith("timeout: it used more CPU time than 0.4 s: ")
    assert (
        "at step 7" in reason and "45% of its budget" in reason and train.record.metrics["cpu_seconds"] > 0.4
    )


def test_limits_are_multiples_of_the_baseline():
    budget = TrainingBudget("tokens", 1000, 60.0)
    baseline = {"train_seconds": 10.0, "cpu_seconds": 8.0, "reference_seconds": 0.001}
    limited = budget.limited(2.0, baseline, cpus=1)
    assert (limited.max_seconds, limited.max_cpu_seconds, limited.reference) == (21.0, 17.0, 0.001)
    assert limited.source == "budget.slowdown: 2 times the slowest baseline"
    assert budget.limited(2.0, baseline, cpus=0).max_cpu_seconds is None
    assert budget.limited(None, baseline, cpus=2) == replace(budget, max_cpu_seconds=120.0)
    assert budget.limited(9.0, baseline, cpus=1).source == "budget.max_seconds"
    timed = TrainingBudget("seconds", 20.0, 20.0)
    assert timed.limited(2.0, baseline, cpus=1) == timed


@pytest.mark.parametrize(("now", "limit"), [(0.001, 10.0), (0.002, 20.0), (1.0, 40.0), (0.0001, 10.0)])
def test_a_slower_processor_has_more_cpu_time(now, limit):
    """By how much longer the fixed computation takes than it did at the baseline, up to four times."""

    class Slow(LoadMeter):
        reference = now

    budget = TrainingBudget("tokens", 1000, 60.0, max_cpu_seconds=10.0, reference=0.001)
    training = Training(None, budget, TrialRecord(), print, Slow())
    assert training.max_cpu_seconds == pytest.approx(limit)


def test_a_script_that_is_told_to_stop_says_where_it_was(train):
    faulthandler = "import faulthandler; faulthandler.register(signal.SIGTERM, chain=True)\n"
    _, reason = ended(train, faulthandler, HELLO, FOREVER, startup=1.0)
    assert "(at train.py:" in reason


def test_ignoring_sigterm_does_not_help(train):
    ignore = "signal.signal(signal.SIGTERM, lambda *a: print('ignored', flush=True))\n"
    stubborn = "while True:\n  try: time.sleep(1)\n  except BaseException: pass\n"
    assert (
        ended(train, ignore, HELLO, READY, stubborn, budget=TrainingBudget("seconds", 0.2, 1))[0]
        is Outcome.INVALID
    )
    assert "ignored" in train.log


def test_grandchildren_are_dead_when_it_returns(train):
    mark = f"grandchild-{os.getpid()}-{time.monotonic_ns()}"
    daemon = (
        "if os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n"
        f"    os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(600)', '{mark}'])\n"
        "  os._exit(0)\n"
    )
    helper = f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', '{mark}'])\n"

    def alive():
        return [p for p in psutil.process_iter(["cmdline"]) if mark in (p.info["cmdline"] or [])]

    counted = []
    log = "time.sleep(0.5)\n" + LOG % (1, 1.0, 10) + "time.sleep(0.5)\n"
    train.seen = type("Seen", (), {"append": lambda _self, _p: counted.append(len(alive()))})()
    train(HELLO, READY, daemon, helper, log, WEIGHTS, SUBMIT)
    assert max(counted) == 2
    assert alive() == []


JUNK = [
    'wire._socket.send(b"no json")\n',
    'wire._socket.send(b"x" * 100_000)\n',
    'wire.send({"type": "start"})\n',
    'wire.send({"type": ["log"]})\n',
]


@pytest.mark.parametrize(("before", "junk"), in_every_phase(JUNK))
def test_junk_is_invalid(train, before, junk):
    assert ended(train, *before, junk, FOREVER)[0] is Outcome.INVALID


def test_another_protocol_is_invalid(train):
    assert ended(train, 'wire.send({"type": "hello", "protocol": 99})\n', FOREVER)[0] is Outcome.INVALID


@pytest.mark.parametrize("loss", ["float('nan')", "float('inf')"])
def test_a_loss_that_is_not_finite_is_a_crash(train, loss):
    outcome, reason = ended(train, HELLO, READY, LOG % (1, loss, 10), FOREVER)
    assert outcome is Outcome.CRASH and reason.startswith("diverged")


def test_only_good_numbers_are_taken(train):
    bad = {
        "UPPER": 1,
        "x" * 33: 1,
        "a b": 1,
        "steps": "many",
        "fine": 2.5,
        "yes": True,
        "huge": 10**400,
        "list": [1],
    }
    submit = f"m = {bad!r}; m['nan'] = float('nan'); wire.send({{'type': 'submit', 'metrics': m}})\n"
    train(HELLO, READY, WEIGHTS, submit, FOREVER)
    own = {"startup_seconds", "startup_cpu_seconds", "train_seconds", "cpu_seconds", "reference_seconds"}
    assert {k: v for k, v in train.record.metrics.items() if k not in own} == {"script_fine": 2.5}


def test_a_script_s_own_numbers_pass_for_none_of_ours(train):
    forged = dict.fromkeys(
        ("llm_dollars", "score", "best", "kept", "tried", "val_loss", "device_memory_mb"), 7.0
    )
    claim = f"wire.send({{'type': 'submit', 'metrics': {forged | {'steps': 3, 'tokens': 90}}}})\n"
    train(HELLO, READY, WEIGHTS, claim, FOREVER)
    metrics = train.record.metrics
    assert not forged.keys() & metrics.keys()
    assert all(metrics[f"script_{name}"] == 7.0 for name in forged)
    assert metrics["steps"] == 3


def test_metrics_of_the_runner_cannot_be_claimed(train):
    own = ("startup_seconds", "train_seconds", "score_seconds", "memory_mb", "weights_mb", "gpu_slowed")
    claims = dict.fromkeys((*own, "validation_bpb", "repeated"), 1e-9)
    claim = f"wire.send({{'type': 'submit', 'metrics': {claims | {'mfu': 0.5}}}})\n"
    train(HELLO, READY, WEIGHTS, "time.sleep(0.2)\n", claim, FOREVER)
    metrics = train.record.metrics
    measured = {"startup_cpu_seconds", "cpu_seconds", "reference_seconds"}
    assert {*metrics} - measured == {"startup_seconds", "train_seconds", "mfu"}
    assert metrics["train_seconds"] > 0.1 and metrics["startup_seconds"] > 1e-9


def test_claiming_more_steps_than_tokens_is_invalid(train):
    claim = "wire.send({'type': 'submit', 'metrics': {'tokens': 10, 'steps': 11}})\n"
    assert ended(train, HELLO, READY, WEIGHTS, claim, FOREVER)[0] is Outcome.INVALID


def test_claiming_more_tokens_than_the_budget_is_invalid(train):
    claim = "wire.send({'type': 'submit', 'metrics': {'tokens': 1001}})\n"
    assert ended(train, HELLO, READY, WEIGHTS, claim, FOREVER)[0] is Outcome.INVALID


def test_claiming_more_than_the_device_can_compute_is_invalid(train):
    claim = "wire.send({'type': 'submit', 'metrics': {'mfu': 1.4}})\n"
    outcome, reason = ended(train, HELLO, READY, WEIGHTS, claim, FOREVER)
    assert outcome is Outcome.INVALID and "140% of what the device" in reason


def test_a_hopeless_trial_is_stopped(train):
    logs = "for i in range(100):\n  " + LOG % (1, 9.0, 300) + "  time.sleep(0.05)\n"
    outcome, reason = ended(train, HELLO, READY, logs, FOREVER, should_stop=lambda p: p.loss == 9.0)
    assert outcome is Outcome.PRUNE and "30%" in reason
    assert len(train.record.curve) == 1


def test_a_flood_of_messages_does_not_hold_up_the_clock(train):
    flood = "while True: " + LOG % (1, 2.0, 10)
    asked = []
    outcome, _ = ended(
        train,
        HELLO,
        READY,
        flood,
        budget=TrainingBudget("seconds", 0.5, 1),
        should_stop=lambda p: asked.append(p),
    )
    assert outcome is Outcome.INVALID
    assert len(train.record.curve) <= 600
    told = [sign for sign in train.seen if sign.phase == "train"]
    assert 1 <= len(asked) <= 6 and len(told) <= 6, "who shows it and who judges it are spared the flood"


def test_the_last_entry_is_passed_on_before_the_submission(train):
    burst = "".join(LOG % (step, 9.0 - step, 100 * step) for step in range(1, 6))
    train(HELLO, READY, burst, WEIGHTS, SUBMIT)
    assert [sign.step for sign in train.seen if sign.phase == "train"] == [1, 5]
    assert len(train.record.curve) == 5


def test_a_flood_of_print_does_not_block_or_fill_memory(train):
    flood = "for i in range(40000): print('x' * 1000)\nprint('the end')\n"
    train(HELLO, READY, flood, WEIGHTS, SUBMIT)
    assert len(train.log) < 20_000 and "bytes left out" in train.log
    assert train.log.endswith("the end\n")


def test_control_characters_do_not_reach_the_log(train):
    train(HELLO, READY, r"print('\x1b[31mred\x1b[0m\x07\x00 a\rb é')" + "\n", WEIGHTS, SUBMIT)
    assert train.log == "red a\nb é\n"


def test_memory_beyond_the_limit_is_named(train):
    grab = "try:\n  x = [bytearray(10**8) for _ in range(40)]\nexcept MemoryError as error:\n  raise\n"
    outcome, reason = ended(train, HELLO, READY, grab, FOREVER)
    assert outcome is Outcome.CRASH and reason.startswith("out of memory")


def test_an_interrupt_kills_the_candidate(train, tmp_path):
    def interrupt(_progress):
        raise KeyboardInterrupt

    train.seen = type("Seen", (), {"append": lambda _self, p: interrupt(p)})()
    mark = f"interrupted-{time.monotonic_ns()}"
    child = f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', '{mark}'])\n"
    with pytest.raises(KeyboardInterrupt):
        train(HELLO, child, FOREVER)
    assert not [p for p in psutil.process_iter(["cmdline"]) if mark in (p.info["cmdline"] or [])]


def test_curves_stay_small_and_keep_their_ends():
    record = TrialRecord()
    for i in range(10_000):
        record.add_point(i / 10_000, math.exp(-i))
    assert len(record.curve) <= 513
    assert record.curve[0][0] == 0 and record.curve[-1][0] == 0.9999
    assert record.curve == sorted(record.curve, key=lambda point: point[0])
