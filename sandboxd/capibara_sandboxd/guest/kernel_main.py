"""The kernel's own process: ipykernel with charts, data frames and environments per request."""

import json
import os
import sys
from typing import Any

_saved: dict[str, str | None] = {}


def enter(encoded: str) -> None:
    """Set environment variables for one execution; JSON, so that no value can be code."""
    values = json.loads(encoded)
    _saved.update({name: os.environ.get(name) for name in values})
    os.environ.update({name: str(value) for name, value in values.items()})


def leave() -> None:
    """Put the environment back as it was before ``enter``."""
    for name, value in _saved.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    _saved.clear()


def _chart(figure: Any) -> dict[str, Any] | None:
    from e2b_charts import chart_figure_to_dict  # noqa: PLC0415  half a second, only for figures

    try:
        chart: dict[str, Any] = json.loads(json.dumps(chart_figure_to_dict(figure), default=str))
    except Exception:  # noqa: BLE001  a figure without a chart is still shown as an image
        return None
    return chart or None


def _frame(frame: Any) -> dict[str, Any]:
    columns = {str(name): column.tolist() for name, column in frame.items()}
    encoded: dict[str, Any] = json.loads(json.dumps(columns, default=str))
    return encoded


def _instance_of(value: object, module: str, name: str) -> bool:
    """Whether a value is of a class, without importing its module."""
    return module in sys.modules and isinstance(value, getattr(sys.modules[module], name))


def load_ipython_extension(shell: Any) -> None:
    """Register what a display shows beside the usual formats."""
    from IPython.core.formatters import BaseFormatter  # noqa: PLC0415  only inside a kernel

    # Asked directly and not by registered type: pyplot drops every formatter of a figure.
    class Chart(BaseFormatter):
        def __call__(self, value: object) -> dict[str, Any] | None:
            return _chart(value) if _instance_of(value, "matplotlib.figure", "Figure") else None

    class Frame(BaseFormatter):
        def __call__(self, value: object) -> dict[str, Any] | None:
            return _frame(value) if _instance_of(value, "pandas", "DataFrame") else None

    for mime, kind in (("e2b/chart", Chart), ("e2b/data", Frame)):
        formatter = kind(parent=shell.display_formatter)
        formatter.format_type = mime
        shell.display_formatter.formatters[mime] = formatter


def main() -> None:
    """Run a kernel with the connection file given as the last argument."""
    from ipykernel.kernelapp import IPKernelApp  # noqa: PLC0415  only inside a kernel
    from traitlets.config import Config  # noqa: PLC0415  only inside a kernel

    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    config.IPKernelApp.extensions = ["guest.kernel_main"]
    app: Any = IPKernelApp.instance(config=config)
    app.initialize(["-f", sys.argv[2]])
    app.start()
