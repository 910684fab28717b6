"""``capibara-devcluster build-images``: build the project's images and print where they are."""

import json
from pathlib import Path
from typing import Annotated

import typer

from capibara_devcluster.images.build import TARGETS, build


def build_images(
    targets: Annotated[list[str] | None, typer.Argument(help="Default: all.")] = None,
    context: Annotated[Path, typer.Option(help="The checkout.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Build the project's images from its Dockerfile, without any registry of images."""
    wanted = targets or list(TARGETS)
    if unknown := sorted(set(wanted) - set(TARGETS)):
        typer.echo(f"no such image: {', '.join(unknown)}; there are {', '.join(TARGETS)}", err=True)
        raise typer.Exit(2)
    images = build(context.resolve(), wanted, progress=lambda text: typer.echo(text, err=True))
    if as_json:
        rows = [
            {"target": i.target, "name": i.name, "id": i.id, "archive": str(i.archive)}
            for i in images
        ]
        typer.echo(json.dumps(rows, indent=2))
    else:
        for image in images:
            typer.echo(f"{image.name}  {image.id[:12]}  {image.archive}")
