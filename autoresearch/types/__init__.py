"""What flows through the loop: proposal -> edit -> trial -> verdict.

Every type is frozen and made of plain values, so that the journal can store it as JSON and no stage can
change what an earlier stage decided. A score is in the unit of the task's metric, whose direction says which
way is better; an effect is a gain, so positive is always better.
"""

from autoresearch.types.choices import (
    REPORTED_SPLITS,
    Arm,
    Category,
    Direction,
    Fidelity,
    Metric,
    Outcome,
    Split,
    State,
    VerdictKind,
)
from autoresearch.types.experiments import Experiment, Trial, in_order, starts_with
from autoresearch.types.plain import Knob, Plain
from autoresearch.types.proposals import Call, Candidate, Cost, Draft, Edit, Idea, Proposal, Tuning
from autoresearch.types.trials import (
    MODEL_DOLLARS,
    WAITING,
    Diagnosis,
    Measurement,
    Progress,
    Provenance,
    TextRequest,
)
from autoresearch.types.verdicts import Estimate, GuardGain, GuardMetric, Levels, Verdict

__all__ = [
    "MODEL_DOLLARS",
    "REPORTED_SPLITS",
    "WAITING",
    "Arm",
    "Call",
    "Candidate",
    "Category",
    "Cost",
    "Diagnosis",
    "Direction",
    "Draft",
    "Edit",
    "Estimate",
    "Experiment",
    "Fidelity",
    "GuardGain",
    "GuardMetric",
    "Idea",
    "Knob",
    "Levels",
    "Measurement",
    "Metric",
    "Outcome",
    "Plain",
    "Progress",
    "Proposal",
    "Provenance",
    "Split",
    "State",
    "TextRequest",
    "Trial",
    "Tuning",
    "Verdict",
    "VerdictKind",
    "in_order",
    "starts_with",
]
