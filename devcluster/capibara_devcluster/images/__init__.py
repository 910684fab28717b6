"""Builds the project's images: by Docker, or by buildah on Debian packages alone."""
