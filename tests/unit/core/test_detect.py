"""What the detector makes of code as people write it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from capibara_operator.api.common import TaskType
from capibara_operator.api.run import SandboxRunSpec
from capibara_operator.core.runs.detect import Hints, detect_task, occurs, script_of
from capibara_operator.core.templates.select import view_template

GENERAL, DATA = TaskType.GENERAL, TaskType.DATA_ANALYSIS
LEARNING, PLOT = TaskType.MACHINE_LEARNING, TaskType.VISUALIZATION
QUICK = TaskType.QUICK_SCRIPT
REPOSITORY = Path(__file__).parents[3]


@dataclass(frozen=True)
class Case:
    reason: str
    want: TaskType
    code: str = ""
    fields: dict[str, Any] = field(default_factory=dict)

    def spec(self) -> SandboxRunSpec:
        return SandboxRunSpec.model_validate(
            ({"code": self.code} if self.code else {}) | self.fields
        )


BASH = {"language": "bash"}

CASES = [
    # --- data
    Case(
        "a summary with pandas", DATA, "import pandas as pd\nprint(pd.read_csv('a.csv').describe())"
    ),
    Case(
        "grouping",
        DATA,
        "import pandas as pd\ndf = pd.DataFrame({'a': [1, 2]})\nprint(df.groupby('a').agg('sum'))",
    ),
    Case(
        "polars", DATA, "import polars as pl\npl.read_parquet('x.parquet').select('a').to_pandas()"
    ),
    Case("SQL on files", DATA, "import duckdb\nprint(duckdb.sql('select 1').fetchall())"),
    Case("plain numpy", DATA, "import numpy as np\nprint(np.random.rand(10).mean())"),
    Case("statistics of scipy", DATA, "from scipy import stats\nprint(stats.ttest_ind([1], [2]))"),
    Case(
        "the csv module",
        DATA,
        "import csv\nfor row in csv.DictReader(open('a.csv')):\n    print(row)",
    ),
    Case(
        "sqlite",
        DATA,
        "import sqlite3\nc = sqlite3.connect('a.db')\nprint(list(c.execute('select 1')))",
    ),
    Case(
        "cleaning that ends in a file",
        DATA,
        "import pandas as pd\ndf = pd.read_excel('a.xlsx').dropna().fillna(0)\ndf.to_csv('b.csv')",
    ),
    Case(
        "a plotting import that is never used",
        DATA,
        "import pandas as pd\nimport matplotlib.pyplot as plt\n"
        "df = pd.read_csv('a.csv')\nprint(df.merge(df, on='k').pivot_table('v', 'k'))",
    ),
    Case(
        "a regression of statsmodels", DATA, "import statsmodels.api as sm\nprint(sm.OLS([1], [1]))"
    ),
    # --- learning
    Case(
        "a classifier",
        LEARNING,
        "from sklearn.ensemble import RandomForestClassifier\n"
        "from sklearn.datasets import load_iris\n"
        "X, y = load_iris(return_X_y=True)\nprint(RandomForestClassifier().fit(X, y).score(X, y))",
    ),
    Case(
        "a training loop",
        LEARNING,
        "import torch\nm = torch.nn.Linear(1, 1)\nloss = m(torch.ones(1)).sum()\nloss.backward()",
    ),
    Case(
        "training that plots its loss",
        LEARNING,
        "import torch, matplotlib.pyplot as plt\nfor _ in range(9):\n    loss.backward()\n"
        "plt.plot(losses)\nplt.savefig('loss.png')\nplt.show()",
    ),
    Case(
        "learning on a data frame",
        LEARNING,
        "import pandas as pd\nfrom sklearn.linear_model import LinearRegression\n"
        "df = pd.read_csv('a.csv').dropna()\nprint(LinearRegression().fit(df[['a']], df.b).coef_)",
    ),
    Case(
        "learning on a data frame with a confusion plot",
        LEARNING,
        "import pandas as pd, seaborn as sns\n"
        "from sklearn.model_selection import train_test_split\n"
        "from sklearn.svm import SVC\ndf = pd.read_csv('a.csv')\n"
        "a, b = train_test_split(df)\nSVC().fit(a, b)\n"
        "sns.heatmap(df.corr())\nplt.savefig('c.png')",
    ),
    Case("keras", LEARNING, "from tensorflow import keras\nkeras.Sequential([]).fit([1], [1])"),
    Case("boosting", LEARNING, "import xgboost as xgb\nxgb.train({}, xgb.DMatrix([[1]]))"),
    Case(
        "a language model",
        LEARNING,
        "from transformers import AutoModel\nAutoModel.from_pretrained('gpt2')",
    ),
    Case("imported inside of a function", LEARNING, "def f():\n    import torch\n    return torch"),
    Case("imported by name", LEARNING, "import importlib\nt = importlib.import_module('torch')"),
    Case("only a submodule", LEARNING, "import sklearn.cluster as c\nc.KMeans(3)"),
    # --- pictures
    Case(
        "the sales plot of the documentation",
        PLOT,
        "import pandas as pd, matplotlib.pyplot as plt\ndf = pd.read_csv('/data/sales.csv')\n"
        "df.groupby('month').total.sum().plot(); plt.savefig('plot.png')",
    ),
    Case(
        "a sine",
        PLOT,
        "import numpy as np, matplotlib.pyplot as plt\nplt.plot(np.sin([1]))\nplt.show()",
    ),
    Case("seaborn", PLOT, "import seaborn as sns\nsns.scatterplot(data=sns.load_dataset('tips'))"),
    Case("plotly", PLOT, "import plotly.express as px\npx.line([1, 2]).write_html('a.html')"),
    Case(
        "an animation", PLOT, "from matplotlib.animation import FuncAnimation\nFuncAnimation(f, g)"
    ),
    Case("a map", PLOT, "import folium\nfolium.Map().save('m.html')"),
    Case("altair", PLOT, "import altair as alt\nalt.Chart(d).mark_bar()"),
    Case(
        "the iris data, drawn and not learned",
        PLOT,
        "from sklearn.datasets import load_iris\nimport matplotlib.pyplot as plt\n"
        "d = load_iris()\nplt.scatter(d.data[:, 0], d.data[:, 1])\nplt.savefig('i.png')",
    ),
    Case(
        "a bar chart that IPython shows",
        PLOT,
        "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.bar([1], [2])",
    ),
    # --- quick and general
    Case("hello", QUICK, "print('hello')"),
    Case("a sum", QUICK, "sum(range(10))"),
    Case(
        "primes",
        QUICK,
        "import math\nn = 97\nprint(all(n % d for d in range(2, math.isqrt(n) + 1)))",
    ),
    Case("dates", QUICK, "from datetime import date\nprint(date.today().isoformat())"),
    Case(
        "words counted", QUICK, "from collections import Counter\nprint(Counter('a b a'.split()))"
    ),
    Case("JSON", QUICK, "import json, sys\nprint(json.dumps({'v': sys.version}))"),
    Case("something slow", GENERAL, "import time\ntime.sleep(600)"),
    Case("a loop of unknown length", GENERAL, "n = 1\nwhile n < 10**9:\n    n += 1"),
    Case("the network", GENERAL, "import requests\nprint(requests.get('http://x').status_code)"),
    Case("other programs", GENERAL, "import subprocess\nsubprocess.run(['ls'])"),
    Case("a long program", GENERAL, "\n".join(f"x{n} = {n}" for n in range(60))),
    Case("an asynchronous program", GENERAL, "import asyncio\nasyncio.run(main())"),
    Case("no Python at all", GENERAL, "this is ( not python"),
    Case(
        "broken Python with a clear import", DATA, "import pandas as pd\ndf = pd.read_csv('a.csv'\n"
    ),
    Case("comments do not count", QUICK, "# import torch, then plot\nprint('import pandas')"),
    Case("a mere mention in a string", QUICK, "print('plt.savefig of torch.backward()')"),
    Case("a module of one's own", GENERAL, "from .torch import fit\nimport mytorch\nfit()"),
    Case("nothing but a comment", GENERAL, "# later"),
    # bash
    Case("hello in bash", QUICK, "echo hello", BASH),
    Case("files", QUICK, "set -e\nls -la | head\nwc -l *.txt", BASH),
    Case("awk", DATA, "awk -F, '{s += $3} END {print s}' sales.csv", BASH),
    Case("a pipe of jq", DATA, "cat a.json | jq '.items[].name' | sort | uniq -c", BASH),
    Case("sqlite in bash", DATA, "sqlite3 a.db 'select count(*) from t'", BASH),
    Case("gnuplot", PLOT, "gnuplot -e 'plot sin(x)'", BASH),
    Case("graphviz", PLOT, "dot -Tpng graph.dot -o graph.png", BASH),
    Case("training by script", LEARNING, "python3 train.py --epochs 10", BASH),
    Case("torchrun", LEARNING, "torchrun --nproc_per_node=2 main.py", BASH),
    Case("installs and trains", LEARNING, "pip install torch==2.3 && python main.py", BASH),
    Case("Python inside of bash", DATA, "python3 - <<'END'\nimport pandas as pd\nEND\n", BASH),
    Case("waiting", GENERAL, "sleep 100; echo done", BASH),
    Case("a program of one's own", GENERAL, "./server --port 80", BASH),
    Case("a comment in bash", QUICK, "# torchrun is not used\necho hi", BASH),
    # commands
    Case("python -c", DATA, fields={"command": ["python3", "-c", "import pandas"]}),
    Case("bash -c", PLOT, fields={"command": ["/bin/bash", "-c", "gnuplot a.gp"]}),
    Case("a plain command", QUICK, fields={"command": ["echo", "hi"]}),
    Case(
        "a command with arguments", LEARNING, fields={"command": ["python3"], "args": ["train.py"]}
    ),
    # words
    Case("words alone", LEARNING, "run()", {"description": "Fine-tune the classifier"}),
    Case(
        "words against a weak sign",
        PLOT,
        "import numpy",
        {"description": "draw a bar chart as png"},
    ),
    Case("words cannot beat code", LEARNING, "import torch\nx.backward()", {"description": "plot"}),
    Case("words in Spanish", PLOT, "run()", {"description": "un gráfico de ventas"}),
    Case(
        "a word within a word",
        GENERAL,
        "import requests",
        {"description": "constraints, explotation"},
    ),
    # given
    Case("given by the user", QUICK, "import torch", {"taskType": "QuickScript"}),
]


def shipped_hints() -> list[Hints]:
    paths = sorted((REPOSITORY / "manifests" / "templates").glob("*.yaml"))
    objects = [yaml.safe_load(path.read_text()) for path in paths]
    views = [view_template(obj) for obj in objects if obj["kind"] == "SandboxTemplate"]
    assert len([view for view in views if view]) == 5
    return [
        Hints(
            view.name,
            view.spec.task_types,
            view.spec.detect.imports if view.spec.detect else (),
            view.spec.detect.patterns if view.spec.detect else (),
        )
        for view in views
        if view
    ]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.reason)
def test_detects(case: Case) -> None:
    found = detect_task(case.spec())
    assert found.task_type is case.want, found
    assert found.evidence
    if case.want is not GENERAL:
        assert 1 <= found.confidence <= 100


@pytest.mark.parametrize(
    "case",
    # The patterns of the shipped templates are plain texts: they also hit in strings and comments.
    [case for case in CASES if "mention" not in case.reason and "comment" not in case.reason],
    ids=lambda case: case.reason,
)
def test_the_hints_of_the_shipped_templates_agree(case: Case) -> None:
    assert detect_task(case.spec(), shipped_hints()).task_type is case.want


def test_the_shipped_samples_are_not_general() -> None:
    paths = sorted((REPOSITORY / "manifests" / "samples").glob("*.yaml"))
    objects = [obj for path in paths for obj in yaml.safe_load_all(path.read_text())]
    specs = [
        SandboxRunSpec.model_validate(obj["spec"])
        for obj in objects
        if obj["kind"] == "SandboxRun" and not {"taskType", "templateRef"}.intersection(obj["spec"])
    ]
    found = {detect_task(spec, shipped_hints()).task_type for spec in specs}
    assert len(specs) >= 3
    assert found == {DATA, LEARNING, PLOT}


def test_a_tie_is_general() -> None:
    spec = SandboxRunSpec(code="import pandas\nimport onnx")
    found = detect_task(spec)
    assert (found.task_type, found.confidence) == (GENERAL, 0)
    assert "tie of DataAnalysis and MachineLearning" in found.evidence[0]


def test_a_template_speaks_for_its_tasks() -> None:
    spec = SandboxRunSpec(code="import Bio.SeqIO\n")
    hints = [Hints("genomics", (DATA,), imports=("Bio",))]
    found = detect_task(spec, hints)
    assert found.task_type is DATA
    assert found.evidence == ("template genomics: imports Bio",)


def test_strong_evidence_comes_first_and_is_bounded() -> None:
    names = ["csv", "pandas", "polars", "dask", "duckdb", "scipy", "xarray", "h5py", "ibis"]
    found = detect_task(SandboxRunSpec(code="\n".join(f"import {name}" for name in names)))
    assert len(found.evidence) == 8
    assert "imports csv" not in found.evidence


@pytest.mark.parametrize(
    ("pattern", "text", "want"),
    [
        ("plt.plot", "x\n  plt.plot(1)", True),
        ("model.*.cuda(", "model.to(a).cuda()", True),
        ("model*cuda", "model\ncuda", False),
        ("cuda*model", "model.cuda", False),
        ("*", "anything", False),
        ("a**b", "a-b", True),
        ("(a+)+$", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!", False),
    ],
)
def test_patterns_are_texts_with_stars(pattern: str, text: str, want: bool) -> None:
    assert occurs(pattern, text) is want


def test_the_script_inside_of_a_command_is_found() -> None:
    assert script_of(SandboxRunSpec(command=("sh", "-c", "ls"))).text == "ls"
    assert script_of(SandboxRunSpec(command=("ls", "-c", "x"))).text == "ls -c x"


@pytest.mark.parametrize(
    "code",
    [
        "(" * 130_000,
        "-" * 32_000 + "1",
        "a" + ".b" * 16_000,
        "a if b else " * 2_500 + "1",
        "import " + "a." * 16_000 + "b",
        "import a." + "b" * 120_000,
        "x" * 131_000,
        "python " * 18_000,
        "python " + "." * 130_000,
        "python <<" * 14_000,
        "." * 131_000,
        "a=" * 65_000,
        "$(" * 65_000,
        "# \n" * 43_000,
        "\0",
    ],
    ids=lambda code: f"{code[:10]!r}",
)
@pytest.mark.parametrize("language", ["python", "bash"])
def test_hostile_code_costs_little(code: str, language: str) -> None:
    started = time.process_time()
    spec = SandboxRunSpec.model_validate({"code": code, "language": language})
    detect_task(spec, shipped_hints())
    assert time.process_time() - started < 1.0
