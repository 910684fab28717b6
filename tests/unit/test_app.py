"""The operator's start, where an API server is not ready for it yet."""

from __future__ import annotations

from typing import Any

from capibara_operator.app import Operator
from capibara_operator.settings import Settings


class Kube:
    """An API server that makes its own namespaces only after its start."""

    def __init__(self) -> None:
        self.answers: list[Any] = [None, None, {"metadata": {"uid": "u-1"}}]

    async def get(self, *_: Any) -> Any:
        return self.answers.pop(0)


def test_a_namespace_that_is_not_there_yet_is_waited_for(run_virtual: Any) -> None:
    kube: Any = Kube()
    assert run_virtual(Operator(Settings())._cluster_id(kube)) == "u-1"
