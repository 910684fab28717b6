"""``python -m capibara_devcluster.demo``: exit code 0 only when everything held."""

import argparse
import sys
from pathlib import Path

from capibara_devcluster.demo import install, light, runs, services
from capibara_devcluster.demo.commands import Cluster, StepError
from capibara_devcluster.demo.install import Checkout
from capibara_devcluster.demo.story import Story
from capibara_devcluster.errors import DevclusterError

NAMESPACE = "capibara6"
_STEPS = 7
_NEXT = f"""
[bold]How to go on[/]
  source .capibara/env                                  kubectl and helm for this cluster
  kubectl config set-context --current -n {NAMESPACE}
  kubectl get sandboxruns -w                            while you apply one of your own:
  kubectl apply -f manifests/samples/word-count.yaml
  kubectl describe sandboxrun sales-plot
  kubectl annotate csvc backend kubectl.kubernetes.io/restartedAt="$(date -Is)" --overwrite
  kubectl explain sandboxrun.spec
  make down                                             when you are done
"""


def main() -> int:
    """Run the demo from the checkout that is the current folder."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--provider", default="auto", help="as of capibara-devcluster up")
    provider: str = parser.parse_args().provider
    checkout = Checkout(Path.cwd())
    story = Story()
    following = ""
    try:
        following = tell(checkout, story, provider)
    except (StepError, DevclusterError) as error:
        story.check(False, str(error))
    ok = story.finish()
    if ok:
        story.console.print(following, soft_wrap=True)
    return 0 if ok else 1


def tell(checkout: Checkout, story: Story, provider: str) -> str:
    """The steps in order; returns how to go on."""
    root = checkout.root
    with story.step("A real Kubernetes cluster"):
        status = install.bring_up(checkout, story, provider)
    kubeconfig = Path(status["kubeconfig"])
    cluster = Cluster(kubeconfig, kubeconfig.parent / "bin", NAMESPACE)
    if status["profile"] != "full":
        story.steps = light.STEPS
        light.tell(checkout, cluster, story, status["missing"])
        return light.NEXT
    story.steps = _STEPS
    with story.step("Images, built from the Dockerfile"):
        images = install.build_images(checkout, story)
        changed = install.changed(checkout, images)
        install.load_images(checkout, story, images)
    with story.step("The operator and sandboxd, installed by the Helm chart"):
        chart = root / "helm" / "capibara-operator"
        install.install_chart(cluster, story, chart, {i.target: i for i in images})
        _ensure_namespace(cluster)
    with story.step("The three services of capibara6, started in order"):
        services.start(cluster, story, root / "manifests" / "services")
        services.restart(cluster, tuple(n for n in services.IN_ORDER if n in changed))
        install.remember(checkout, images)
    with story.step("Five runs, one for each template, and one that fails"):
        runs.run_all(cluster, story, root / "manifests" / "samples")
    with story.step("A plot, and an error"):
        runs.save_plot(cluster, story, checkout.state / "demo")
        runs.show_failure(cluster, story)
    with story.step("A service that runs while one of its endpoints does not answer"):
        broken = root / "manifests" / "samples" / "service-broken-endpoint.yaml"
        services.show_broken(cluster, story, broken)
    return _NEXT


def _ensure_namespace(cluster: Cluster) -> None:
    manifest = f'{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{NAMESPACE}"}}}}'
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=manifest)


if __name__ == "__main__":
    sys.exit(main())
