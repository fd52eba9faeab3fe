"""Every knob of a run, declared once: command line, help, Prefect's form, manifest and checks are made from these."""

from tasks.parameters.choices import DEFAULT_SEED as DEFAULT_SEED
from tasks.parameters.choices import FASHION_MNIST as FASHION_MNIST
from tasks.parameters.choices import NAME_PATTERN as NAME_PATTERN
from tasks.parameters.choices import SYNTHETIC_LINEAR as SYNTHETIC_LINEAR
from tasks.parameters.choices import Device as Device
from tasks.parameters.choices import Implementation as Implementation
from tasks.parameters.choices import Loss as Loss
from tasks.parameters.choices import ModelName as ModelName
from tasks.parameters.choices import Runner as Runner
from tasks.parameters.choices import Schedule as Schedule
from tasks.parameters.choices import is_name as is_name
from tasks.parameters.evaluation import EvaluateParameters as EvaluateParameters
from tasks.parameters.gates import Gates as Gates
from tasks.parameters.narrowed import retrain_form as retrain_form
from tasks.parameters.own_data import InspectParameters as InspectParameters
from tasks.parameters.own_data import OwnData as OwnData
from tasks.parameters.runs import Data as Data
from tasks.parameters.runs import MaintainParameters as MaintainParameters
from tasks.parameters.runs import PredictParameters as PredictParameters
from tasks.parameters.runs import RetrainParameters as RetrainParameters
from tasks.parameters.training import Found as Found
from tasks.parameters.training import LinearTraining as LinearTraining
from tasks.parameters.training import SoftmaxTraining as SoftmaxTraining
from tasks.parameters.training import Steps as Steps
from tasks.parameters.training import Training as Training
