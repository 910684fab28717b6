"""Serve the integrated server."""

from capibara_services.integrated_server.app import PORT, create
from capibara_services.server import serve

serve(create(), port=PORT)
