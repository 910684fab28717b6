"""``python -m capibara_devcluster.images``."""

import typer

from capibara_devcluster.images.cli import build_images

typer.run(build_images)
