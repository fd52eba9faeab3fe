"""``gradmill mirror``: the champion, for consumers on other hosts."""

from typing import Annotated

import typer

from flows.cli.options import Artifacts, Debug, Json, ModelArgument, print_json
from tasks.store import mirroring


def mirror(
    name: ModelArgument,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="s3://BUCKET/FOLDER or the like, or a path on a mounted share.")
    ],
    artifacts: Artifacts = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Copy the champion to an object store or share: its files, each read back, then the pointer to them.

    The same command again writes only what is missing or damaged there. Credentials come from the environment.
    """
    mirrored = mirroring.mirror(name, url)
    if as_json:
        print_json({"schema_version": 1, **mirrored.model_dump(mode="json")})
    else:
        written = ", ".join(mirrored.written) or "nothing, all is there as it should be"
        typer.echo(f"{name} version {mirrored.version} is the champion at {mirrored.url}; copied: {written}")
