"""Namespaces, cgroups and the file system of a sandbox."""
