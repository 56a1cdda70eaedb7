"""What the tutorials share: how their parties are run, XGBoost in the clear, and pictures."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import prepare

import spuvm as spu
from spuvm.ml.binning import find_edges
from spuvm.network import Scratch, make_run_folder, run_parties

COMPUTING = ("alice", "bob", "carol")  # the machine's parties; others bring data alone
OUT = Path(__file__).parent / "out"
PATIENCE = 600.0  # seconds that a party waits for another, which may be compiling for the first time
TEST_SIZE = 0.25
SEED = 1


@dataclass(frozen=True)
class Tutorial:
    """A tutorial: jobs that all parties run, one after another, each in processes of its own.

    Attributes:
        name: of the tutorial, its data and its script.
        parties: who brings data.
        label: the column to predict.
        options: of `spuvm.data.vertical`: whether cells may be missing, which categories all may know.
        parameters: of `Sgb` and of `XGBClassifier` alike.
        jobs: by name: functions of a `Setting`.
        compare: what the demonstration shows in the end, with all files in one hand: a function of a `Setting`.
    """

    name: str
    parties: tuple[str, ...]
    label: str
    options: Mapping[str, Any]
    parameters: Mapping[str, Any]
    jobs: Mapping[str, Callable[[Setting], None]]
    compare: Callable[[Setting], None]

    @property
    def everybody(self) -> tuple[str, ...]:
        """Those that compute, and those that only bring data."""
        return tuple(dict.fromkeys([*COMPUTING, *self.parties]))

    @property
    def script(self) -> str:
        return str(Path(__file__).parent / f"{self.name}.py")


@dataclass(frozen=True)
class Setting:
    """A tutorial, and where its files are.

    Attributes:
        data: the folder of <party>.parquet.
        out: the folder to write to; what a party writes is in out/<party>.
    """

    tutorial: Tutorial
    data: Path
    out: Path
    started: float = field(default_factory=time.perf_counter)

    def frame(self) -> spu.data.Frame:
        """The frame of all parties' files. A party opens only its own."""
        sources = {party: self.data / f"{party}.parquet" for party in self.tutorial.parties}
        return spu.data.vertical(sources, key="id", **self.tutorial.options)

    def split(self) -> tuple[spu.data.Frame, spu.data.Frame]:
        """Rows to train on, and rows held out."""
        return self.frame().split(TEST_SIZE, SEED)

    def machine(self) -> spu.SPU:
        return spu.SPU(spu.utils.testing.cluster_def(COMPUTING))

    def folder(self, party: str) -> Path:
        """A party's own folder, made if the party is here."""
        folder = self.out / party
        if spu.PYU(party).is_here:
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def say(self, text: str) -> None:
        """A line with the seconds since the start."""
        print(f"{time.perf_counter() - self.started:7.1f} s  {text}", flush=True)


def print_reveals(reveals: Sequence[Any]) -> None:
    """The machine's own list of what it has shown to whom."""
    print("revealed: " + ("; ".join(map(str, reveals)) or "nothing"), flush=True)


# In the clear -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clear:
    """XGBoost's model of all parties' columns, on the same rows and with the same parameters.

    Attributes:
        ids, labels: of the rows held out.
        probability: [rows] of label 1, or [rows, classes].
        scores: after each round, by metric, of the rows held out.
        importance: by feature, how often it is split.
        seconds: of training.
    """

    ids: np.ndarray
    labels: np.ndarray
    probability: np.ndarray
    scores: Mapping[str, list[float]]
    importance: Mapping[str, float]
    seconds: float


def in_the_clear(setting: Setting, metrics: Sequence[str]) -> Clear:
    """Train XGBoost on all files, with the bins that `Sgb` makes: only a demonstration can do that.

    Numbers are replaced by the bin that they are in, so that XGBoost tries the same splits.
    """
    import xgboost

    tutorial = setting.tutorial
    spu.init(parties=tutorial.everybody, address="local")
    train, test = setting.split()
    binned = bins(train, tutorial)
    x, y = ([binned(frame), labels_of(frame, tutorial).astype(int)] for frame in (train, test))
    ids = test.keys(tutorial.parties[0]).value["id"]
    spu.shutdown()
    model = xgboost.XGBClassifier(
        **{**tutorial.parameters, "max_bin": 1 << 16},
        tree_method="hist",
        enable_categorical=True,
        max_cat_to_onehot=1 << 20,
        eval_metric=list(metrics),
    )
    start = time.perf_counter()
    model.fit(*x, eval_set=[tuple(y)], verbose=False)
    seconds = time.perf_counter() - start
    probability = model.predict_proba(y[0])
    if probability.shape[1] == 2:
        probability = probability[:, 1]
    importance = dict.fromkeys(x[0].columns, 0.0) | model.get_booster().get_score(importance_type="weight")
    return Clear(ids, y[1], probability, model.evals_result()["validation_0"], importance, seconds)


def labels_of(frame: spu.data.Frame, tutorial: Tutorial) -> np.ndarray:
    label = frame[tutorial.label]
    values: np.ndarray = label.at(*label.parties).value
    return values


def bins(train: spu.data.Frame, tutorial: Tutorial) -> Callable[[spu.data.Frame], pd.DataFrame]:
    """A function that replaces the numbers of a frame by their bins; categories and missing cells stay."""
    features = train.drop(tutorial.label)
    owners = [party for party in features.parties if features.columns_of(party)]
    edges = {p: find_edges(features.at(p).value, features.schema.of(p), tutorial.parameters["max_bin"]) for p in owners}

    def binned(frame: spu.data.Frame) -> pd.DataFrame:
        columns: dict[str, Any] = {}
        for owner in owners:
            values = frame[features.columns_of(owner)].at(owner).value
            known = frame.categories(owner).value
            for x, column, cuts in zip(values.T, features.schema.of(owner), edges[owner]):
                if column.type == "category":
                    codes = np.where(np.isnan(x), -1, x).astype(int)
                    columns[column.name] = pd.Categorical.from_codes(codes, categories=range(len(known[column.name])))
                else:
                    number = np.searchsorted(cuts, x.astype(np.float32), side="right")
                    columns[column.name] = np.where(np.isnan(x), np.nan, number)
        return pd.DataFrame(columns)

    return binned


# Pictures -------------------------------------------------------------------------------------------------------


BLUE, ORANGE, GREY = "#1f5fa8", "#d9730d", "#9a9a9a"


def picture(path: Path, draw: Callable[[Any], None], width: float = 4.6, height: float = 4.4) -> None:
    """Draw on one pair of axes, and write it as PNG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(path, dpi=150)
    print(f"wrote {path}", flush=True)


def roc(path: Path, labels: np.ndarray, secure: np.ndarray, clear: np.ndarray, title: str) -> None:
    """ROC curves of both models' scores for the same rows."""
    from sklearn.metrics import roc_auc_score, roc_curve

    def draw(axes: Any) -> None:
        for name, score, style in (
            ("XGBoost in the clear", clear, {"color": ORANGE, "linewidth": 3.5, "alpha": 0.55}),
            ("spuvm", secure, {"color": BLUE, "linewidth": 1.4}),
        ):
            wrong, right, _ = roc_curve(labels, score)
            axes.plot(wrong, right, label=f"{name}: AUC {roc_auc_score(labels, score):.4f}", **style)
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
        axes.set(xlabel="false positive rate", ylabel="true positive rate", title=title, xlim=(0, 1), ylim=(0, 1.005))
        axes.set_aspect("equal")
        axes.legend(loc="lower right", frameon=False)

    picture(path, draw)


def by_round(path: Path, metric: str, secure: Sequence[float], clear: Sequence[float], title: str) -> None:
    """The score of the rows held out, after each round."""

    def draw(axes: Any) -> None:
        axes.plot(
            range(1, len(clear) + 1), clear, color=ORANGE, linewidth=3.5, alpha=0.55, label="XGBoost in the clear"
        )
        axes.plot(range(1, len(secure) + 1), secure, color=BLUE, linewidth=1.4, marker=".", label="spuvm")
        axes.set(xlabel="round", ylabel=f"{metric} of the rows held out", title=title)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False)

    picture(path, draw)


def importance(path: Path, secure: Mapping[str, float], clear: Mapping[str, float], title: str, most: int = 15) -> None:
    """How often the trees split each feature; the most used ones."""
    names = sorted(secure, key=lambda n: secure[n] + clear.get(n, 0))[-most:]

    def draw(axes: Any) -> None:
        place = np.arange(len(names))
        axes.barh(place + 0.2, [secure[n] for n in names], 0.38, color=BLUE, label="spuvm")
        axes.barh(place - 0.2, [clear.get(n, 0) for n in names], 0.38, color=ORANGE, label="XGBoost in the clear")
        axes.set_yticks(place, names)
        axes.set(xlabel="splits", title=title)
        axes.legend(frameon=False, loc="lower right")

    picture(path, draw, 6.0, 1.2 + 0.3 * len(names))


# Three ways to run it ---------------------------------------------------------------------------------------------


def simulate(setting: Setting) -> None:
    """All parties in this process, the jobs one after another."""
    for job in setting.tutorial.jobs.values():
        spu.init(parties=setting.tutorial.everybody, address="local")
        job(setting)
        spu.shutdown()


def be(setting: Setting, party: str, config: str, job: str) -> None:
    """One party, for one job."""
    spu.init(party=party, config=config)
    try:
        setting.tutorial.jobs[job](setting)
    finally:
        spu.shutdown()


def network(setting: Setting) -> None:
    """All parties as processes of this machine, new ones for each job, with certificates made for this run."""

    def show(party: str, stream: str, line: str) -> None:
        print(f"{party:>5} | {line}", file=getattr(sys, stream), flush=True)

    tutorial = setting.tutorial
    with Scratch() as folder:
        others = tuple(p for p in tutorial.everybody if p not in COMPUTING)
        config = make_run_folder(folder, spu.Config(parties=COMPUTING, others=others), timeout=PATIENCE)
        common = ["--config", str(config), "--data", str(setting.data), "--out", str(setting.out)]
        common += ["--rounds", str(tutorial.parameters["n_estimators"])]
        for job in tutorial.jobs:
            print(f"--- {job}: {len(tutorial.everybody)} processes", flush=True)
            commands = {p: [sys.executable, tutorial.script, job, "--as", p, *common] for p in tutorial.everybody}
            run_parties(commands, on_line=show)


def main(tutorial: Tutorial, description: str) -> int:
    """The command line of a tutorial."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("job", nargs="?", choices=tutorial.jobs, help="of one party; all jobs if not given")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--network", action="store_true", help="all parties as local processes over mutual TLS")
    how.add_argument("--as", dest="party", choices=tutorial.everybody, help="be this party; needs a job and --config")
    parser.add_argument("--config", help="the cluster file: `spuvm certificates` makes one")
    parser.add_argument("--data", type=Path, help="folder of <party>.parquet; prepared if not given")
    parser.add_argument("--out", type=Path, default=OUT / tutorial.name, help="folder to write to (%(default)s)")
    parser.add_argument("--rows", type=int, help="of the data that are prepared; all if not given")
    parser.add_argument("--rounds", type=int, help=f"of boosting ({tutorial.parameters['n_estimators']})")
    options = parser.parse_args()
    if options.rounds is not None:
        tutorial = replace(tutorial, parameters={**tutorial.parameters, "n_estimators": options.rounds})
    if not bool(options.party) == bool(options.config) == bool(options.job):
        parser.error("a job, --as and --config belong together")
    if options.data is None:
        folder = prepare.DATA if options.rows is None else prepare.DATA / f"{options.rows}_rows"
        options.data = folder / tutorial.name
        if not options.party and not options.data.is_dir():
            prepare.write(tutorial.name, folder, options.rows)
    setting = Setting(tutorial, options.data, options.out)
    try:
        if options.party:
            be(setting, options.party, options.config, options.job)
            return 0
        (network if options.network else simulate)(setting)
    except spu.errors.SpuError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    tutorial.compare(setting)
    return 0
