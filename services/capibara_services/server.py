"""What the three services share: the application with its health route, errors and start."""

import os
from datetime import UTC, datetime
from importlib.metadata import version

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

DISTRIBUTION = "capibara-operator"


def create_app(service: str) -> FastAPI:
    """Return an application named ``service`` whose errors are JSON: ``{"error": message}``."""
    app = FastAPI(title=f"capibara6 {service}", version=version(DISTRIBUTION))

    @app.exception_handler(HTTPException)
    async def error(_request: Request, exc: HTTPException) -> JSONResponse:
        return JSONResponse({"error": exc.detail}, status_code=exc.status_code)

    return app


def health(service: str) -> dict[str, object]:
    """The fields that clients of ``/health`` read, for a process that answers."""
    return {
        "status": "healthy",
        "service": service,
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": version(DISTRIBUTION),
        "environment": os.environ.get("CAPIBARA_ENVIRONMENT", "development"),
    }


def announced(path: str) -> dict[str, object]:
    """What GET answers for a route whose work is asked for by POST: it is served, at no cost."""
    return {"endpoint": path, "method": "POST", "served": True}


def not_built(what: str) -> HTTPException:
    """The answer to work that this release cannot do: 501, never a made-up result."""
    return HTTPException(501, f"{what} is not part of this release; nothing was done")


def serve(app: FastAPI, *, port: int) -> None:
    """Serve ``app`` on every address, on ``port`` or on the one that PORT names."""
    uvicorn.run(
        app,
        host=os.environ.get("HOST", "0.0.0.0"),  # noqa: S104 - a container's own address
        port=int(os.environ.get("PORT", port)),
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
