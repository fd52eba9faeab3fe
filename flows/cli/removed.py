"""Commands and options that were removed, and what to use instead: whoever types one reads it, with exit code 2.

Removed parameters stand in ``removed`` of their model (tasks/parameters), where stored documents are checked for them
as well; their options follow from that.
"""

from tasks.parameters import FLOWS, InspectParameters
from tasks.parameters.form import ParameterModel, spell_flag

COMMANDS: dict[str, str] = {
    "backup": "copy artifacts/ with restic: see docs/backup.md",
    "bench": "run python -m benchmarks in a checkout",
    "notify": "see gradmill status, which shows where alerts go; docs/on-duty.md has how to send a test message",
    "restore": "restore artifacts/ with restic: see docs/backup.md",
}
OPTIONS: dict[tuple[str, str], str] = {  # by the command that had them
    ("schedule", "--tune"): "run gradmill tune NAME from cron, or gradmill schedule tune-monthly --cron '0 2 1 * *'",
    ("unschedule", "--tune"): "name the deployment: gradmill unschedule search-NAME",
    ("verify", "--public-key"): "run model_signing verify key: see docs/models.md, Attestation",
}
FORMS: dict[str, type[ParameterModel]] = {**FLOWS, "inspect": InspectParameters}  # by the command that takes it


def list_options() -> dict[tuple[str, str], str]:
    """What to use instead of each removed option, by command and option."""
    of_parameters = {
        (command, spell_flag(name)): action
        for command, form in FORMS.items()
        for model in form.list_models()
        for name, action in model.removed.items()
    }
    return OPTIONS | of_parameters
