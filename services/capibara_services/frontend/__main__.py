"""Serve the frontend."""

from capibara_services.frontend.app import PORT, create
from capibara_services.server import serve

serve(create(), port=PORT)
