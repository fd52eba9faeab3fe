"""Every parameter of a run, declared once for the command line, help, Prefect's form, manifest and checks."""

from tasks.parameters.data import NO_WINDOW, Data, InspectParameters, OwnData
from tasks.parameters.form import Use
from tasks.parameters.runs import (
    EvaluateParameters,
    Found,
    Gates,
    LearningParameters,
    MaintainParameters,
    PredictParameters,
    RetrainParameters,
    Search,
    TuneParameters,
    narrow_form,
)
from tasks.parameters.training import (
    FASHION_MNIST,
    SYNTHETIC_LINEAR,
    Device,
    Hyperparameters,
    Implementation,
    LearningRateSchedule,
    Loss,
    ModelName,
    Runner,
    Training,
    is_name,
)

__all__ = [
    "FASHION_MNIST",
    "NO_WINDOW",
    "SYNTHETIC_LINEAR",
    "Data",
    "Device",
    "EvaluateParameters",
    "Found",
    "Gates",
    "Hyperparameters",
    "Implementation",
    "InspectParameters",
    "LearningParameters",
    "LearningRateSchedule",
    "Loss",
    "MaintainParameters",
    "ModelName",
    "OwnData",
    "PredictParameters",
    "RetrainParameters",
    "Runner",
    "Search",
    "Training",
    "TuneParameters",
    "Use",
    "is_name",
    "narrow_form",
]
