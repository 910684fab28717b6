"""Serve the backend."""

from capibara_services.backend.app import PORT, create
from capibara_services.server import serve

serve(create(), port=PORT)
