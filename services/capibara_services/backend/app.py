"""The Backend API (port 8000): health, queries and code execution."""

from fastapi import FastAPI

from capibara_services.server import announced, create_app, health, not_built

PORT = 8000
SERVICE = "backend"
QUERY = "/api/v1/query"
EXECUTE = "/api/v1/e2b/execute"


def create() -> FastAPI:
    """Return the application."""
    app = create_app(SERVICE)

    @app.api_route("/health", methods=["GET", "HEAD"])
    async def get_health() -> dict[str, object]:
        return health(SERVICE)

    @app.get("/health/detailed")
    async def get_health_detailed() -> dict[str, object]:
        return health(SERVICE) | {"components": {"api": "healthy"}}

    @app.get(QUERY)
    async def get_query() -> dict[str, object]:
        return announced(QUERY)

    @app.post(QUERY)
    async def query() -> None:
        raise not_built("Routing of queries")

    @app.get(EXECUTE)
    async def get_execute() -> dict[str, object]:
        return announced(EXECUTE)

    @app.post(EXECUTE)
    async def execute() -> None:
        raise not_built("Execution over HTTP (create a SandboxRun with kubectl instead)")

    return app
