"""The three services' HTTP surface, as their existing clients and the kubelet see it."""

from collections.abc import Callable
from datetime import datetime

import httpx
import pytest
from fastapi import FastAPI

from capibara_services.backend import app as backend
from capibara_services.frontend import app as frontend
from capibara_services.integrated_server import app as integrated_server

APPS: dict[str, Callable[[], FastAPI]] = {
    "backend": backend.create,
    "integrated-server": integrated_server.create,
    "frontend": frontend.create,
}


def client(service: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=APPS[service]())
    return httpx.AsyncClient(transport=transport, base_url="http://service")


@pytest.mark.parametrize("service", APPS)
async def test_health_names_the_service_and_answers_head(service: str) -> None:
    async with client(service) as http:
        answer = await http.get("/health")
        assert answer.status_code == 200
        body = answer.json()
        assert body["status"] == "healthy"
        assert body["service"] == service
        assert datetime.fromisoformat(body["timestamp"]).tzinfo is not None
        assert body["version"]
        assert body["environment"] == "development"
        assert (await http.head("/health")).status_code == 200


@pytest.mark.parametrize(
    ("service", "path"),
    [
        ("backend", "/api/v1/query"),
        ("backend", "/api/v1/e2b/execute"),
        ("integrated-server", "/api/chat"),
    ],
)
async def test_work_is_announced_to_a_probe_and_never_pretended(service: str, path: str) -> None:
    async with client(service) as http:
        probe = await http.get(path)
        assert (probe.status_code, probe.json()["endpoint"]) == (200, path)
        work = await http.post(path, json={"query": "2 + 2"})
        assert work.status_code == 501
        assert "nothing was done" in work.json()["error"]


async def test_an_unknown_path_is_a_json_404() -> None:
    async with client("backend") as http:
        answer = await http.get("/api/v1/nothing")
        assert answer.status_code == 404
        assert "json" in answer.headers["content-type"]


async def test_the_frontend_serves_its_page() -> None:
    async with client("frontend") as http:
        answer = await http.get("/")
        assert answer.status_code == 200
        assert "<h1>capibara6</h1>" in answer.text
        assert (await http.head("/")).status_code == 200
