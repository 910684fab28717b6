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
        return json.loads(json.dumps(chart_figure_to_dict(figure), default=str)) or None
    except Exception:  # noqa: BLE001  a figure without a chart is still shown as an image
        return None


def _frame(frame: Any) -> dict[str, Any] | None:
    columns = {str(name): column.tolist() for name, column in frame.items()}
    return json.loads(json.dumps(columns, default=str))


def load_ipython_extension(shell: Any) -> None:
    """Register what a display shows beside the usual formats."""
    from IPython.core.formatters import BaseFormatter  # noqa: PLC0415  only inside a kernel
    from traitlets import ObjectName, Unicode  # noqa: PLC0415  only inside a kernel

    for mime, module, name, function in (
        ("e2b/chart", "matplotlib.figure", "Figure", _chart),
        ("e2b/data", "pandas", "DataFrame", _frame),
    ):
        kind = type(
            f"{name}Formatter",
            (BaseFormatter,),
            {
                "format_type": Unicode(mime),
                "print_method": ObjectName(f"_repr_capibara_{name.lower()}_"),
                "_return_type": dict,
            },
        )
        formatter = kind(parent=shell.display_formatter)
        formatter.for_type_by_name(module, name, function)
        shell.display_formatter.formatters[mime] = formatter


def main() -> None:
    """Run a kernel with the connection file given as the last argument."""
    from ipykernel.kernelapp import IPKernelApp  # noqa: PLC0415  only inside a kernel
    from traitlets.config import Config  # noqa: PLC0415  only inside a kernel

    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    config.IPKernelApp.extensions = ["guest.kernel_main"]
    app = IPKernelApp.instance(config=config)
    app.initialize(["-f", sys.argv[2]])
    app.start()
