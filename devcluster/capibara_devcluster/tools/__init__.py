"""The pinned programs that a cluster is made of: found, or built from Go modules into a cache."""
