"""The command `capibara-devcluster`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from capibara_devcluster import clusters
from capibara_devcluster.errors import DevclusterError
from capibara_devcluster.images.cli import build_images
from capibara_devcluster.layout import DEFAULT_NAME, Layout, default_state_dir
from capibara_devcluster.options import Options, Profile, Provider
from capibara_devcluster.status import Status, show

app = typer.Typer(
    name="capibara-devcluster",
    help="A real local Kubernetes cluster: kind where Docker answers, native processes otherwise.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Name = Annotated[str, typer.Option(help="Name of the cluster.")]
StateDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the clusters' files. [default: $CAPIBARA_STATE_DIR, else .capibara in "
        "the checkout]"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_NOT_READY: Final = 1
_FAILED: Final = 1
_INTERRUPTED: Final = 130


@app.command()
def up(  # noqa: PLR0913 - one parameter for each option
    *,
    name: Name = DEFAULT_NAME,
    state_dir: StateDir = None,
    provider: Annotated[Provider, typer.Option(help="How to make the cluster.")] = Provider.AUTO,
    profile: Annotated[Profile, typer.Option(help="How much of a cluster.")] = Profile.FULL,
    kwok: Annotated[
        int, typer.Option(min=0, max=5000, help="Simulated nodes (control-plane profile).")
    ] = 0,
    audit: Annotated[bool, typer.Option("--audit", help="Log every API request.")] = False,
    with_helm: Annotated[
        bool | None, typer.Option("--helm/--no-helm", help="Provide helm. [default: full profile]")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for a ready cluster.")] = 120.0,
    owner_pid: Annotated[
        int | None, typer.Option(help="End the cluster when this process ends.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Bring the cluster up, or repair it; harmless when it is up already."""
    helm = profile is Profile.FULL if with_helm is None else with_helm
    request = clusters.Request(
        provider=provider,
        profile=profile,
        options=Options(kwok_nodes=kwok, audit=audit),
        extra_tools=("helm",) if helm else (),
        owner_pid=owner_pid,
        timeout=timeout,
    )
    layout = _layout(state_dir, name)
    _print(clusters.up(layout, request, _say), as_json=as_json)
    _say(f"use it: . {layout.env_file}")


@app.command()
def down(
    *,
    name: Name = DEFAULT_NAME,
    state_dir: StateDir = None,
    purge: Annotated[bool, typer.Option("--purge", help="Delete loaded images too.")] = False,
) -> None:
    """End the cluster and delete its data; harmless when there is none."""
    ended = clusters.down(_layout(state_dir, name), purge=purge, progress=_say)
    _say(f"cluster {name} is down" if ended else f"no cluster {name} is up")


@app.command()
def status(*, name: Name = DEFAULT_NAME, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Show how the cluster is; exit code 1 when it is not ready."""
    seen = clusters.status(_layout(state_dir, name))
    _print(seen, as_json=as_json)
    if not seen.ready:
        raise typer.Exit(_NOT_READY)


@app.command(name="load-image")
def load_image(
    sources: Annotated[
        list[Path], typer.Argument(help="Docker or OCI archives, or OCI layout folders.")
    ],
    *,
    name: Name = DEFAULT_NAME,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Bring images to the cluster's nodes; those that are there already cost nothing."""
    loaded = clusters.load_images(_layout(state_dir, name), sources, _say)
    if as_json:
        sys.stdout.write(json.dumps({"loaded": loaded}) + "\n")


app.command(name="build-images")(build_images)


@app.command()
def kubeconfig(*, name: Name = DEFAULT_NAME, state_dir: StateDir = None) -> None:
    """Print the path of the cluster's kubeconfig."""
    sys.stdout.write(f"{clusters.kubeconfig(_layout(state_dir, name))}\n")


def _layout(state_dir: Path | None, name: str) -> Layout:
    return Layout((state_dir or default_state_dir()).absolute(), name)


def _print(seen: Status, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(seen.dump(), indent=2) + "\n")
    else:
        show(seen)


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def main() -> None:
    """Run the command line; failures print what happened and what to do next."""
    try:
        app()
    except DevclusterError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(_FAILED)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; `capibara-devcluster up` goes on, `down` tidies up\n")
        sys.exit(_INTERRUPTED)
