"""A user's own images as a data set: found where they are, validated, and prepared like any other."""

from pathlib import Path

from tasks.data.dataset import Validated
from tasks.data.images import finding, reading, sheet, writing
from tasks.data.images.examining import Examined, examine
from tasks.data.images.fixed import FixedImages
from tasks.data.images.reading import Asked, Images
from tasks.data.images.source import Source
from tasks.data.table.own import scratch_folder
from tasks.data.validated import Fixed, ValidatedDataset
from tasks.errors import DataError
from tasks.parameters import Data
from tasks.parameters.own_data import OwnData
from tasks.records import ChampionData, PreparedDataset, RawDataset
from tasks.serving.task import TaskName

SPOOL = "pixels"


def look(
    source: Source,
    name: str,
    data: OwnData,
    kept: FixedImages | None,
    scratch: Path,
    champion: ChampionData | None = None,
) -> tuple[Examined, Images]:
    """Read all images, and say which is whose and what is wrong; pixels are in a file in ``scratch``.

    Raises:
        UsageError: options that mean something else than version 1 fixed.
        DataError: images cannot be read at all.
    """
    if kept:
        kept.require(data)
    asked = Asked(data.side, data.channels, kept.recipe.shape if kept else None)
    images = reading.read(source.content, asked, scratch / SPOOL)
    return examine(source, images, name, data, kept, champion), images


class OwnImages:
    """The images at ``source``; they are called by the name of their model."""

    def __init__(self, name: str, source: str) -> None:
        self.name = self.title = self.identifier = name
        self.source = source

    def fetch(self) -> RawDataset:
        """Where the images are and how they look; nothing is copied."""
        found = finding.find(self.source)
        return RawDataset(name=self.name, source=found.source, files={}, look=found.look)

    def validate(
        self, raw: RawDataset, data: Data, task: TaskName, kept: Fixed | None, champion: ChampionData | None
    ) -> Validated:
        """Read all images, and say which is whose, and what is wrong."""
        with scratch_folder(self.name) as folder:
            known = kept if isinstance(kept, FixedImages) else None
            (report, recipe, rows), images = look(finding.find(self.source), self.name, data, known, folder, champion)
            if finding.find(self.source).look != raw.look:
                raise DataError(f"{self.source} has changed while it was read", "files that stay", "run it again")
            drawn = sheet.draw(images, rows)
            if recipe is None:
                return Validated(report, sheet=drawn)
            written = writing.write(self.name, images, rows, recipe, folder)
            return Validated(report, images=written.model_copy(update={"accepted": report.accepted}), sheet=drawn)

    def prepare(self, validated: ValidatedDataset, data: Data, seed: int) -> PreparedDataset:
        """The splits that validation wrote: nothing is fitted to them."""
        if validated.images is None:
            raise ValueError("images that were not validated")
        return validated.images.model_copy(update={"report": validated.report, "sheet": validated.sheet})
