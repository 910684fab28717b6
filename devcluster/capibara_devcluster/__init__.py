"""A real local Kubernetes cluster: kind where Docker answers, native processes otherwise."""
