"""A real API server for tests of the chart."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from support.chart import CHART, NAMESPACE, RELEASE, Helm

_TIMEOUT_SECONDS: Final = 150
_IN_FORCE_SECONDS: Final = 60
KINDS: Final = ("capibaraservices", "sandboxproviders", "sandboxruns", "sandboxtemplates")

Completed = subprocess.CompletedProcess[str]
Object = dict[str, Any]
Question = tuple[str, str]


@dataclass(frozen=True)
class Cluster:
    """An API server with controller-manager, and the tools that fit it."""

    kubeconfig: Path
    tools: Path
    audit_log: Path

    @property
    def helm(self) -> Helm:
        """Helm on this cluster."""
        return Helm(self.tools / "helm", self.kubeconfig)

    def attempt(self, *arguments: str, obj: Object | None = None, user: str = "") -> Completed:
        """Run kubectl, as ``user`` where one is given, with ``obj`` as its input."""
        impersonated = [f"--as={user}"] if user else []
        return subprocess.run(
            [
                self.tools / "kubectl",
                f"--kubeconfig={self.kubeconfig}",
                *impersonated,
                *arguments,
            ],
            input=json.dumps(obj) if obj else None,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_SECONDS,
        )

    def do(self, *arguments: str, obj: Object | None = None, user: str = "") -> str:
        """Run kubectl, which must succeed; returns what it printed."""
        done = self.attempt(*arguments, obj=obj, user=user)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def refused(self, *arguments: str, obj: Object | None = None, user: str = "") -> str:
        """Run kubectl, which must be refused; returns the complaint."""
        done = self.attempt(*arguments, obj=obj, user=user)
        assert done.returncode != 0, f"kubectl {' '.join(arguments)} was not refused"
        return done.stderr

    def get(self, *arguments: str) -> Any:
        """``kubectl get`` as decoded JSON."""
        return json.loads(self.do("get", "--output=json", *arguments))

    def create(self, obj: Object, *, user: str = "") -> Object:
        """Create an object and return it as it was stored."""
        created: Object = json.loads(
            self.do("create", "--filename=-", "--output=json", obj=obj, user=user)
        )
        return created

    @contextlib.contextmanager
    def namespace(self) -> Iterator[str]:
        """A namespace of its own for a test."""
        name = f"test-{uuid.uuid4().hex[:8]}"
        self.do("create", "namespace", name)
        yield name
        self.do("delete", "namespace", name, "--wait=false")

    def install(self, *arguments: str) -> None:
        """Install the chart, or bring it back to these values, and wait for its policies."""
        self.helm.run(
            *("upgrade", RELEASE, str(CHART), "--install"),
            *("--namespace", NAMESPACE, "--create-namespace"),
            *arguments,
        )
        until(self._enforced, "the policies are in force")

    def allowed(self, user: str, questions: Sequence[Question], namespace: str) -> list[bool]:
        """Whether a user may do each (verb, plural.group/subresource); ``""`` is cluster-wide."""
        reviews = [_access_review(user, verb, what, namespace) for verb, what in questions]
        template = '--output=jsonpath={.status.allowed}{"\\n"}'
        everything = {"apiVersion": "v1", "kind": "List", "items": reviews}
        answers = self.do("create", "--filename=-", template, obj=everything).split()
        assert len(answers) == len(questions)
        return [answer == "true" for answer in answers]

    def release_runs(self) -> None:
        """Remove the finalizer of every run, as docs/install.md has it for stranded ones."""
        for item in self.get("sandboxruns.capibara6.dev", "--all-namespaces")["items"]:
            meta = item["metadata"]
            patch = '--patch={"metadata":{"finalizers":null}}'
            run = f"sandboxrun.capibara6.dev/{meta['name']}"
            where = f"--namespace={meta['namespace']}"
            done = self.attempt("patch", run, where, "--type=merge", patch)
            assert done.returncode == 0 or "not found" in done.stderr, done.stderr

    def _enforced(self) -> bool:
        labelled = run_manifest("canary", "default", labels={"capibara6.dev/closed": "true"})
        dry_run = ("create", "--dry-run=server", "--filename=-", "--output=json")
        misplaced = self.attempt(*dry_run, obj=run_manifest("canary", NAMESPACE))
        closed = self.attempt(*dry_run, obj=labelled)
        plain = self.attempt(*dry_run, obj=run_manifest("canary", "default"))
        return (
            "run-namespace" in misplaced.stderr
            and "run-labels" in closed.stderr
            and "finalizers" in plain.stdout
        )


def _access_review(user: str, verb: str, what: str, namespace: str) -> Object:
    resource, _, subresource = what.partition("/")
    plural, _, group = resource.partition(".")
    service_accounts = ["system:serviceaccounts"] if user.startswith("system:") else []
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": user,
            "groups": ["system:authenticated", *service_accounts],
            "resourceAttributes": {
                "verb": verb,
                "group": group,
                "version": "*",
                "resource": plural,
                "subresource": subresource,
                "namespace": namespace,
            },
        },
    }


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + _IN_FORCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {_IN_FORCE_SECONDS} s: {what}"
        time.sleep(0.1)


def run_manifest(
    name: str,
    namespace: str,
    *,
    labels: dict[str, str] | None = None,
    finalizers: list[str] | None = None,
    **spec: Any,
) -> Object:
    """A SandboxRun that prints 1."""
    return {
        "apiVersion": "capibara6.dev/v1alpha1",
        "kind": "SandboxRun",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels or {},
            "finalizers": finalizers or [],
        },
        "spec": {"code": "print(1)", **spec},
    }
