"""Builds the project's images with no registry of images: Debian packages and buildah."""
