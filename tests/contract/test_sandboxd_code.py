"""Code executed through the genuine e2b-code-interpreter SDK in a real sandboxd."""

import base64
import time

import e2b_code_interpreter as ci
import pytest
from e2b.exceptions import (
    NotFoundException,
    SandboxException,
    TimeoutException,
)

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def sandbox(sdk_sandbox: ci.Sandbox) -> ci.Sandbox:
    return sdk_sandbox


class TestCodeInterpreter:
    def test_result_output_and_state(self, sandbox: ci.Sandbox) -> None:
        first = sandbox.run_code("print('out'); import sys; print('err', file=sys.stderr); x = 41")
        assert (first.logs.stdout, first.logs.stderr) == (["out\n"], ["err\n"])
        second = sandbox.run_code("x + 1")
        assert second.text == "42"
        assert second.execution_count == first.execution_count + 1
        assert sandbox.run_code("import os; os.getcwd()").text == "/home/user"

    def test_error(self, sandbox: ci.Sandbox) -> None:
        error = sandbox.run_code("def f():\n    return 1 / 0\nf()").error
        assert error
        assert (error.name, error.value) == ("ZeroDivisionError", "division by zero")
        assert "return 1 / 0" in error.traceback
        assert "\x1b[" not in error.traceback

    def test_plot_is_a_png_and_a_chart(self, sandbox: ci.Sandbox) -> None:
        done = sandbox.run_code(
            "import matplotlib.pyplot as plt\n"
            "plt.plot([1, 2, 3], label='growth'); plt.title('Sales'); plt.show()"
        )
        assert done.error is None
        assert base64.b64decode(done.results[0].png or "").startswith(PNG_SIGNATURE)
        chart = done.results[0].chart
        assert isinstance(chart, ci.charts.LineChart)
        assert (chart.title, chart.elements[0].label) == ("Sales", "growth")

    def test_data_frame(self, sandbox: ci.Sandbox) -> None:
        done = sandbox.run_code("import pandas as pd; pd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})")
        assert done.results[0].data == {"a": [1, 2], "b": ["x", "y"]}
        assert "<table" in (done.results[0].html or "")

    def test_output_is_streamed(self, sandbox: ci.Sandbox) -> None:
        sandbox.run_code("pass")
        began = time.monotonic()
        seen: list[float] = []
        sandbox.run_code(
            "import time\nprint(1, flush=True)\ntime.sleep(1.5)\nprint(2)",
            on_stdout=lambda _: seen.append(time.monotonic() - began),
        )
        assert seen[0] < 1.2 < seen[-1]

    def test_envs_hold_for_one_execution_and_cannot_inject(self, sandbox: ci.Sandbox) -> None:
        evil = "'); import os; os.environ['OWNED'] = 'yes'; ('\n\\"
        code = "import os; print(os.environ.get('VALUE'), os.environ.get('OWNED'), sep='|')"
        assert sandbox.run_code(code, envs={"VALUE": evil}).logs.stdout == [f"{evil}|None\n"]
        assert sandbox.run_code(code).logs.stdout == ["None|None\n"]
        assert sandbox.run_code("import os; os.environ['GREETING']").text == "hello"

    def test_contexts(self, sandbox: ci.Sandbox) -> None:
        context = sandbox.create_code_context(cwd="/tmp")
        sandbox.run_code("y = 1", context=context)
        assert (
            sandbox.run_code("import os; (y, os.getcwd())", context=context).text == "(1, '/tmp')"
        )
        assert sandbox.run_code("'y' in globals()").text == "False"
        assert context.id in {one.id for one in sandbox.list_code_contexts()}
        sandbox.restart_code_context(context)
        assert sandbox.run_code("'y' in globals()", context=context).text == "False"
        sandbox.remove_code_context(context)
        with pytest.raises(NotFoundException):
            sandbox.run_code("1", context=context)

    def test_dead_kernel_is_replaced(self, sandbox: ci.Sandbox) -> None:
        died = sandbox.run_code("import os; os._exit(9)").error
        assert died
        assert died.name == "ContextRestarting"
        assert sandbox.run_code("1 + 1").text == "2"

    def test_client_that_goes_interrupts_the_kernel(self, sandbox: ci.Sandbox) -> None:
        sandbox.run_code("kept = 5")
        with pytest.raises(TimeoutException):
            sandbox.run_code("import time\ntime.sleep(100)", timeout=1)
        began = time.monotonic()
        assert sandbox.run_code("kept").text == "5"
        assert time.monotonic() - began < 10

    def test_other_languages_are_refused(self, sandbox: ci.Sandbox) -> None:
        with pytest.raises(SandboxException, match="'java' has no kernel"):
            sandbox.run_code("1", language="java")

    def test_it_is_reached_from_inside(self, sandbox: ci.Sandbox) -> None:
        body = """'{"code": "print(5)"}'"""
        done = sandbox.commands.run(f"curl -sN 127.0.0.1:49999/execute -d {body}")
        lines = done.stdout.splitlines()
        assert '"text": "5\\n"' in done.stdout
        assert lines[-1] == '{"type": "end_of_execution"}'

    async def test_async(self, async_sandbox: ci.AsyncSandbox) -> None:
        done = await async_sandbox.run_code("print('a'); 3 + 4")
        assert (done.text, done.logs.stdout) == ("7", ["a\n"])
