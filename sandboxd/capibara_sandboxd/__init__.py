"""A local, E2B-compatible sandbox runtime: a program of its own, useful without the operator."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("capibara-operator")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0.0.0"
