"""The project's demo: a real cluster, the operator by its chart, and everything it does."""
