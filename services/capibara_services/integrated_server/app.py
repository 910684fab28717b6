"""The Integrated Server (port 5001): health and chat."""

from fastapi import FastAPI

from capibara_services.server import announced, create_app, health, not_built

PORT = 5001
SERVICE = "integrated-server"
CHAT = "/api/chat"


def create() -> FastAPI:
    """Return the application."""
    app = create_app(SERVICE)

    @app.api_route("/health", methods=["GET", "HEAD"])
    async def get_health() -> dict[str, object]:
        return health(SERVICE) | {"models": [], "e2b_available": False}

    @app.get(CHAT)
    async def get_chat() -> dict[str, object]:
        return announced(CHAT)

    @app.post(CHAT)
    async def chat() -> None:
        raise not_built("Chat with a model")

    return app
