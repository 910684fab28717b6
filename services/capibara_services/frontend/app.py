"""The Frontend (port 8080): one page."""

from importlib.resources import files

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from capibara_services.server import create_app, health

PORT = 8080
SERVICE = "frontend"


def create() -> FastAPI:
    """Return the application."""
    app = create_app(SERVICE)
    page = files("capibara_services.frontend").joinpath("index.html").read_text(encoding="utf-8")

    @app.api_route("/", methods=["GET", "HEAD"])
    async def index() -> HTMLResponse:
        return HTMLResponse(page)

    @app.api_route("/health", methods=["GET", "HEAD"])
    async def get_health() -> dict[str, object]:
        return health(SERVICE)

    return app
