"""Stage 2: check whether the data are fit for training, and report all errors at once."""

from tasks.data.book_datasets import find_dataset
from tasks.data.prepared_splits import PreviousSchema, ValidatedDataset
from tasks.data.report import DataReport, require_fit
from tasks.machine.run_messages import print_message
from tasks.parameters import Data
from tasks.records import ChampionData, RawDataset
from tasks.serving.task import TaskName
from tasks.stage import live_progress, stage
from tasks.store import atomic
from tasks.store.artifact_paths import CONTACT_SHEET, DATA_PAGE, DATA_REPORT
from tasks.store.page_rendering import render_markdown
from tasks.store.record_base import FileRef
from tasks.store.run_folder import RunFolder


def _show(run: RunFolder, report: DataReport, sheet: bytes | None) -> tuple[FileRef, FileRef | None]:
    """Write the report into the run's folder, the UI and the log, with the contact sheet of images beside it."""
    page, picture = report.page(sheet or b""), None
    atomic.write_bytes(run.file(DATA_PAGE), render_markdown(page, embed=False).encode(), is_durable=False)
    if sheet is not None:
        picture = atomic.write_bytes(run.file(CONTACT_SHEET), sheet, is_durable=False)
    shown = live_progress.LivePage(f"{run.name or report.name}-data", "what validation says of the data")
    shown.show(render_markdown(page))
    print_message(report.summary, short=report.summary.partition("; ")[0])
    for finding in report.findings:
        if finding.severity != "error":  # errors are reported together
            print_message(f"{finding.severity}: {finding.sentence}")
    live_progress.emit_changed_data(report.name, run.path, report.changes, bool(report.errors))
    return report.write(run.file(DATA_REPORT), is_durable=False), picture


@stage()
def validate(
    run: RunFolder,
    raw: RawDataset,
    data: Data,
    task: TaskName,
    previous: PreviousSchema | None = None,
    champion: ChampionData | None = None,
) -> ValidatedDataset:
    """Write ``data-report.json`` and a page of it into the run's folder, then accept the data or stop the run.

    ``previous`` is what earlier versions of the name fixed (``own_data.find_fixed``), ``champion`` describes the
    champion's data (``own_data.of_champion``).

    Raises:
        UsageError: the options contradict each other, or what earlier versions fixed.
        DataError: the data cannot be read, or are unfit; for unfit data the report is written nonetheless.
    """
    report, prepared, sheet = find_dataset(raw.name, data).validate(raw, data, task, previous, champion)
    written, picture = _show(run, report, sheet)
    require_fit(report.findings)
    return ValidatedDataset(raw=raw, report=written, prepared=prepared, sheet=picture)
