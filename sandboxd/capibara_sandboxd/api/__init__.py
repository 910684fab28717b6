"""The control plane: REST under the API key."""
