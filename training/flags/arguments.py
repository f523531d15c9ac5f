"""Every flag of a training run: ours (`own_arguments.py`) and those of transformers' `TrainingArguments`."""

from dataclasses import dataclass

from transformers import TrainingArguments

from ...data.arguments import DataArguments
from .own_arguments import (
    OURS,
    D2SModelArguments,
    D2SObjectiveArguments,
    PIRModelArguments,
    PIRObjectiveArguments,
    RetrievalArguments,
    StructureArguments,
    TowerArguments,
)


@dataclass
class RetrievalTrainingArguments(RetrievalArguments, TrainingArguments):
    """TrainingArguments of transformers with the paper's schedule, learning-rate groups and tower caches."""


D2S_ARGUMENTS = (*OURS["d2s"][:3], RetrievalTrainingArguments)
PIR_ARGUMENTS = (*OURS["pir"][:3], RetrievalTrainingArguments)

__all__ = [
    "D2S_ARGUMENTS",
    "PIR_ARGUMENTS",
    "DataArguments",
    "RetrievalTrainingArguments",
    "D2SModelArguments",
    "D2SObjectiveArguments",
    "PIRModelArguments",
    "PIRObjectiveArguments",
    "StructureArguments",
    "TowerArguments",
]
