"""A whole node in namespaces of its own: kubelet, containerd, kube-proxy and DNS as processes."""
