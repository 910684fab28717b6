"""What in code, commands and words speaks for which task type, and how strongly.

Weights: 5 leaves little doubt, 3 is a clear sign, 1 to 2 is a hint that needs company.
"""

from collections.abc import Mapping
from typing import Final

from capibara_operator.api.common import TaskType

Signals = Mapping[str, tuple[TaskType, int]]

_DATA: Final = TaskType.DATA_ANALYSIS
_LEARNING: Final = TaskType.MACHINE_LEARNING
_PLOT: Final = TaskType.VISUALIZATION
_QUICK: Final = TaskType.QUICK_SCRIPT


def _table(*rows: tuple[TaskType, int, str]) -> Signals:
    return {word: (task, weight) for task, weight, words in rows for word in words.split()}


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


IMPORTS: Final = _table(
    (
        _LEARNING,
        5,
        (
            "accelerate catboost diffusers fastai flax jax keras lightgbm lightning peft"
            " pytorch_lightning sentence_transformers sklearn stable_baselines3 tensorflow torch"
            " torchvision transformers trl ultralytics xgboost"
        ),
    ),
    (_LEARNING, 3, "datasets gensim gymnasium mlflow nltk onnx onnxruntime optuna spacy"),
    (_LEARNING, 2, "sklearn.datasets"),
    (
        _PLOT,
        4,
        (
            "altair bokeh cartopy e2b_charts folium graphviz holoviews matplotlib mpl_toolkits"
            " plotly plotnine pydeck pygal pyvista seaborn turtle wordcloud"
        ),
    ),
    (_PLOT, 2, "PIL networkx"),
    (
        _DATA,
        3,
        (
            "dask duckdb geopandas h5py ibis modin openpyxl pandas polars pyarrow pyspark scipy"
            " statsmodels vaex xarray"
        ),
    ),
    (_DATA, 2, "csv numpy sqlalchemy sqlite3 statistics xlrd"),
)
"""Python modules; a submodule that is listed itself counts as itself."""

CALLS: Final = _table(
    (_LEARNING, 4, "backward from_pretrained train_test_split zero_grad"),
    (_LEARNING, 3, "cross_val_score fit fit_transform make_pipeline partial_fit"),
    (
        _LEARNING,
        2,
        "DataLoader GridSearchCV accuracy_score classification_report predict train",
    ),
    (_PLOT, 4, "savefig write_image"),
    (
        _PLOT,
        2,
        (
            "add_subplot add_trace bar barh boxplot contour heatmap hist histplot imshow lineplot"
            " pie plot scatter scatterplot show subplots violinplot write_html"
        ),
    ),
    (
        _DATA,
        2,
        (
            "DictReader agg corr crosstab describe dropna fillna groupby melt merge nlargest"
            " pivot pivot_table quantile read_csv read_excel read_json read_parquet read_sql"
            " resample rolling to_csv to_parquet value_counts"
        ),
    ),
)
"""Names of functions and methods that are called."""

TRAINING_CALLS: Final = frozenset({"fit", "fit_transform", "partial_fit", "backward", "train"})
TRAINING_BONUS: Final = 6
"""Added where a learning library is imported and trained: its plots are by the way."""

COMMANDS: Final = _table(
    (_LEARNING, 5, "accelerate deepspeed fairseq-train torchrun"),
    (_LEARNING, 3, "nvidia-smi tensorboard"),
    (_PLOT, 5, "gnuplot mmdc plantuml termgraph"),
    (_PLOT, 3, "convert dot ffmpeg magick montage neato"),
    (
        _DATA,
        4,
        "csvcut csvgrep csvjoin csvsql csvstat datamash duckdb mlr parquet-tools qsv xsv",
    ),
    (_DATA, 3, "awk gawk jq mawk psql sqlite3"),
    (_DATA, 1, "comm cut join paste sort uniq"),
)
"""Programs that a shell script starts."""

COMMAND_PATTERNS: Final[tuple[tuple[str, TaskType, int], ...]] = (
    (r"\bpython3?\s+(?:-m\s+)?\S{0,64}(?:train|finetune|fine_tune)\w*", _LEARNING, 4),
    (r"\bpython3?\s+(?:-m\s+)?\S{0,64}(?:plot|chart|figure)\w*", _PLOT, 4),
    (r"\bpython3?\s+(?:-m\s+)?\S{0,64}(?:analy[sz]e|analysis|report|clean|etl)\w*", _DATA, 4),
    (r"\b--epochs\b|--learning-rate\b|--lr\b", _LEARNING, 2),
    (r"[\w./-]{1,64}\.(?:csv|tsv|parquet|xlsx)\b", _DATA, 1),
)

WORDS: Final[tuple[tuple[str, TaskType, int], ...]] = (
    (r"train\w*|fine-?tun\w*|classif\w*|regression|neural|machine learning", _LEARNING, 3),
    (r"entren\w*|predi[ck]\w*|cluster(?:ing|s)?|embeddings?|deep learning", _LEARNING, 2),
    (r"plot\w*|charts?|visuali[sz]\w*|heat ?maps?|histograms?|gr[aá]fic\w*", _PLOT, 3),
    (r"draw\w*|figures?|diagrams?|dashboards?|pngs?", _PLOT, 2),
    (r"analy\w*|an[aá]li\w*|statistic\w*|aggregat\w*|data ?frames?|pivot", _DATA, 3),
    (r"csv|datasets?|datos|clean\w*|summar\w*|tables?|columns?", _DATA, 2),
    (r"quick\w*|hello|one-?liner|r[aá]pid\w*|tiny|simple", _QUICK, 3),
)
"""Words of a run's description, as regular expressions."""

QUICK_MODULES: Final = _set(
    "abc argparse array ast base64 bisect calendar cmath collections contextlib copy dataclasses"
    " datetime decimal difflib enum fractions functools getpass glob hashlib heapq html io"
    " itertools json keyword locale math numbers operator os pathlib platform pprint random re"
    " secrets shutil string struct sys textwrap time types typing unicodedata uuid"
    " zlib zoneinfo"
)
"""Modules of a script that is soon done: no network, no processes, no waiting."""

QUICK_COMMANDS: Final = _set(
    "[ basename cal cat cd cp cut date df dirname du echo env export expr false find free grep head"
    " hostname id ls md5sum mkdir mv nproc printf pwd read rm sed seq set sha256sum sort stat"
    " tail tee test touch tr true uname uniq uptime wc which whoami"
)
