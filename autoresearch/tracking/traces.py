"""Calls of language models as MLflow traces, each linked to the run of the experiment that it led to.

The mirror's thread writes them later from `calls.db`, so no call waits for MLflow. A trace's id follows from
the call, so that writing one twice changes nothing. Texts are shortened and without secrets. If a store takes
no traces, the mirror reports that once and does the rest of its work. A call that led to no experiment
belongs to the run of the search.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from autoresearch.store.calls import CallLog, shortened
from autoresearch.text import one_line, scrub
from autoresearch.types import Call, Experiment

if TYPE_CHECKING:
    from autoresearch.tracking.store import Store

MAX_CHARACTERS = 50_000
"""Shown of a prompt or an answer; `calls.db` has more."""


class Traces:
    """Writes the calls of a search into a store as traces, each once.

    Attributes:
        problem: Why there are none, in one line; None while they can be written.
    """

    def __init__(self, calls: CallLog) -> None:
        self.problem: str | None = None
        self._calls = calls
        self._written: set[tuple[str, str]] = set()
        self._store: Store | None = None

    def write(self, store: Store, search: str, run_id: str, conversations: Iterable[str]) -> None:
        """Show the calls of some conversations, linked to a run.

        Args:
            store: Where.
            search: What tells searches apart; part of the ids.
            run_id: The run that they belong to.
            conversations: Whose calls.

        Raises:
            Exception: If the store cannot be reached; to be tried again.
        """
        if self._store is not store:
            self._store, self._written, self.problem = store, set(), None
        for conversation in conversations:
            # Also when it was shown as the search's own before it led to an experiment.
            if self.problem or (conversation, run_id) in self._written:
                continue
            try:
                for number, call in enumerate(self._calls.of(conversation)):
                    write_trace(store, f"{search} {conversation} {number}", run_id, call)
            except Exception as error:
                if not store.answers():
                    raise
                self.problem = f"MLflow shows no calls of models: {one_line(scrub(str(error)), 120)}"
            else:
                self._written.add((conversation, run_id))

    def write_rest(
        self, store: Store, search: str, run_id: str, experiments: Sequence[Experiment], *, ended: bool
    ) -> None:
        """Show the calls that led to no experiment; the latest only when the search has ended."""
        known = {name for experiment in experiments for name in conversations(experiment)}
        every = self._calls.conversations()
        rest = [name for name in (every if ended else every[:-1]) if name not in known]
        self.write(store, search, run_id, rest)


def conversations(experiment: Experiment) -> list[str]:
    """The conversations that led to an experiment, those of dropped proposals included."""
    made = (experiment.proposal, *experiment.dropped)
    return [proposal.conversation for proposal in made if proposal and proposal.conversation]


def write_trace(store: Store, identity: str, run_id: str, call: Call) -> None:
    """Make one trace say what a call says.

    Args:
        store: Where.
        identity: What the trace's id is made from.
        run_id: The run that it is linked to.
        call: What happened.
    """
    from mlflow.entities import Span, TraceInfo, TraceLocation, TraceState
    from mlflow.tracing.client import TracingClient

    call = replace(
        call,
        asked=shortened(scrub(call.asked), MAX_CHARACTERS),
        answered=shortened(scrub(call.answered), MAX_CHARACTERS),
        problem=shortened(scrub(call.problem), 1000),
    )
    span = _span(hashlib.sha256(identity.encode()).hexdigest(), call)
    attributes = span["attributes"]
    info = TraceInfo(
        trace_id=span["trace_id"],
        trace_location=TraceLocation.from_experiment_id(store.experiment_id),
        request_time=round(1000 * call.started),
        execution_duration=round(1000 * call.cost.seconds),
        state=TraceState.ERROR if _failed(call) else TraceState.OK,
        request_preview=call.asked[-900:],
        response_preview=(call.answered or call.problem)[:900],
        trace_metadata={
            "mlflow.sourceRun": run_id,
            "mlflow.trace.session": call.conversation,
            "mlflow.trace.tokenUsage": attributes["mlflow.chat.tokenUsage"],
            "mlflow.trace.cost": attributes["mlflow.llm.cost"],
            "mlflow.trace_schema.version": "3",
        },
        tags={
            "mlflow.traceName": call.model,
            "outcome": one_line(call.problem, 200) or "accepted",
            "mlflow.trace.spansLocation": "TRACKING_STORE",
        },
    )
    client = TracingClient(store.uri)
    client.start_trace(info)
    client.log_spans(store.experiment_id, [Span.from_dict(span)])


def _failed(call: Call) -> bool:
    return bool(call.problem) and not call.answered


def _span(digest: str, call: Call) -> dict[str, Any]:
    """The only span of a call's trace, in MLflow's own format; `digest` gives the ids."""
    trace_id, (provider, _, model) = f"tr-{digest[:32]}", call.model.partition(":")
    read, written = call.cost.input_tokens, call.cost.output_tokens
    attributes: dict[str, Any] = {
        "mlflow.traceRequestId": trace_id,
        "mlflow.spanType": "CHAT_MODEL",
        "mlflow.spanInputs": {"messages": [{"role": "user", "content": call.asked}]},
        "mlflow.spanOutputs": {"role": "assistant", "content": call.answered},
        "mlflow.chat.tokenUsage": {
            "input_tokens": read,
            "output_tokens": written,
            "total_tokens": read + written,
        },
        "mlflow.llm.cost": {"total_cost": call.cost.dollars},  # how much of it for the input is not known
        "mlflow.llm.model": model,
        "mlflow.llm.provider": provider,
        **({"problem": call.problem} if call.problem else {}),
    }
    began = round(1e9 * call.started)
    return {
        "trace_id": trace_id,
        "span_id": digest[32:48],
        "parent_span_id": None,
        "name": call.model,
        "start_time_unix_nano": began,
        "end_time_unix_nano": began + round(1e9 * call.cost.seconds),
        "attributes": {key: json.dumps(value) for key, value in attributes.items()},
        "status": {
            "code": "STATUS_CODE_ERROR" if _failed(call) else "STATUS_CODE_OK",
            "message": call.problem if _failed(call) else "",
        },
        "events": [],
    }
