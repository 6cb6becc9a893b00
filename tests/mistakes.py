"""Mistakes on the command line that are answered before torch, Ray or MLflow are imported, and what each is told."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

from fieldshift.cli import main

SLOW = ("torch", "torchvision", "ray", "mlflow", "pandas", "scipy", "matplotlib", "sklearn", "optuna")
"""Packages whose import a mistake does not wait for."""

# RUN is the folder of a trained network, POLICY a policy's file, TAKEN the folder of a run, FILE a file.
MISTAKES: dict[str, tuple[list[str], str]] = {
    "command": (["trian"], "Did you mean 'train'"),
    "option": (["train", "--recipe.epoch", "3"], "Did you mean --recipe.epochs?"),
    "number": (["train", "--recipe.epochs", "many"], "must be a whole number"),
    "range": (["train", "--recipe.flip", "2"], "a probability must be from 0 to 1"),
    "nobody to share statistics with": (
        ["train", "--recipe.sync_batch_norm", "true"],
        "leave it out, or give --cluster.workers",
    ),
    "no search to share statistics in": (
        ["search", "--search.sync_batch_norm", "true"],
        "--search.sync_batch_norm shares",
    ),
    **{
        f"{command}: statistics of a {section} in one process": (
            [command, *words, "--cluster.trials_at_once", "0"],
            f"--{section}.sync_batch_norm shares",
        )
        for command, section, words in (
            ("compare", "recipe", ["--recipe.sync_batch_norm", "true"]),
            ("compare", "search", ["--search.sync_batch_norm", "true"]),
            ("study", "recipe", ["--recipe.sync_batch_norm", "true"]),
            ("study", "search", ["--search.sync_batch_norm", "true"]),
            ("sweep-frames", "recipe", ["--policy", "POLICY", "--recipe.sync_batch_norm", "true"]),
        )
    },
    "nothing to tune": (["compare", "--arms", "none", "--tune_randaugment", "2"], "is not among the arms"),
    "copies": (["study", "--tta_copies", "-1"], "--tta_copies is -1"),
    "configuration": (["train", "--config", "nothing.yaml"], "nothing.yaml"),
    "data set": (["train", "--data", "digit-pairs-lef"], "Did you mean 'digit-pairs-left'"),
    "kind of data": (["check", "--data", "foldr:x"], "Did you mean 'folder:PATH'"),
    "data folder": (["train", "--data", "folder:nothing"], "The data folder 'nothing' does not exist"),
    "data file": (["init", "--data", "npz:nothing.npz"], "The npz file 'nothing.npz' does not exist"),
    "published data": (["train", "--data", "cifar10", "--loading.root", "nothing"], "cifar10 is not at"),
    "home": (["train", "--data", "folder:~nobody-here/x"], "give the full path"),
    "task": (["train", "--task", "segmentatio"], "Did you mean 'segmentation'"),
    "network": (["train", "--network", "resnett18"], "Did you mean 'resnet18'"),
    "network of another task": (["train", "--task", "segmentation"], "(--network) such as tiny-resnet-fcn"),
    "network of another task than the data's": (["study", "--data", "voc2012"], "(--network) such as tiny-resnet-fcn"),
    "segmenter of classes": (
        ["search", "--data", "cifar10", "--network", "fcn_resnet18"],
        "(--network) such as tiny-resnet,",
    ),
    "described network": (["describe", "--network", "resnett18"], "Did you mean 'resnet18'"),
    "looked at network": (["receptive-field", "--network", "resnett18"], "Did you mean 'resnet18'"),
    "temporal module": (["sweep-frames", "--policy", "POLICY", "--temporal", "tsn"], "Did you mean 'tsm'"),
    "weights": (["train", "--network", "resnet18", "--architecture.weights", "DEFALT"], "Did you mean 'DEFAULT'"),
    "weights file": (["train", "--architecture.weights", "nothing.pth"], "nothing.pth"),
    "policy": (["train", "--policy", "nothing.json"], "There is no policy file nothing.json"),
    "policy that is none": (["preview", "--policy", "FILE"], "is not a valid policy"),
    "explained policy": (["explain", "nothing.json"], "nothing.json"),
    "explained folder": (["explain", "TAKEN"], "has no policy; give the folder of a search"),
    "setting in a file": (
        ["train", "--config", "CONFIG"],
        "unknown option 'recipe.epoch'. Did you mean recipe.epochs?",
    ),
    "space": (["search", "--space", "affine-cel"], "Did you mean 'affine-cell'"),
    "space file": (["study", "--space", "nothing.toml"], "No search space file at nothing.toml"),
    "arm": (["compare", "--arms", "randaugmen"], "Did you mean 'randaugment'"),
    "arm without policy": (["train", "--arm", "das"], "The arm 'das' needs a policy"),
    "stage": (["study", "--stages", "serch"], "Did you mean 'search'"),
    "budget": (["compare", "--budgets", "equal-epoch"], "Did you mean 'equal-epochs'"),
    "budget of an unknown cost": (
        ["compare", "--policy", "POLICY", "--budgets", "search-included"],
        "does not record the cost of its search",
    ),
    "frames": (["train", "--frames", "0"], "--frames is 0"),
    **{
        f"{command}: too many frames": (
            [command, *words, "1000000000"],
            "1,000,000,000, but a video has at most 1,000 frames; give fewer.",
        )
        for command, *words in (
            ("train", "--frames"),
            ("search", "--frames"),
            ("describe", "--frames"),
            ("receptive-field", "--network", "tiny-resnet", "--frames"),
            ("preview", "--policy", "POLICY", "--frames"),
            ("sweep-frames", "--policy", "POLICY", "--frame_counts", "3"),
            ("study", "--frame_counts", "3"),
        )
    },
    "folder that is a file": (["train", "--out", "FILE"], "is a file; give a folder"),
    "folder of a run": (["train", "--out", "TAKEN"], "holds a run of another configuration (data is other there"),
    "cores": (
        ["train", "--cluster.workers", "4096", "--recipe.batch", "4096"],
        "Too few CPU cores for 4,096 workers",
    ),
    "cores of trials": (
        ["study", "--cluster.trial_workers", "4096", "--recipe.batch", "4096", "--search.batch", "4096"],
        "Too few CPU cores for 4,096 workers",
    ),
    "address": (["train", "--cluster.workers", "1", "--cluster.address", "127.0.0.1:1"], "Nothing answers at"),
    "run": (["evaluate", "--run", "nothing"], "There is no folder nothing"),
    "run without network": (["export", "--run", "TAKEN"], "is not finished; the same command with --resume"),
    "export's format": (["export", "--run", "RUN", "--format", "onx"], "must be one of torch, onnx, safetensors"),
    "compiled and recomputed": (
        ["train", "--recipe.compile", "true", "--architecture.recompute", "true"],
        "--recipe.compile and --architecture.recompute cannot be combined",
    ),
    "picture": (["predict", "--run", "RUN", "nothing.png"], "nothing.png does not exist"),
    "folder without pictures": (
        ["predict", "--run", "RUN", "TAKEN"],
        "is a folder without pictures; name pictures, or",
    ),
    "top": (["predict", "--run", "RUN", "--top", "11", "FILE"], "--top is 11, but must be from 1 to the 2 classes"),
    "figure": (
        ["preview", "--policy", "POLICY", "--out", "frames.jpg"],
        "a figure is written as .png, .svg, .pdf or .gif",
    ),
    "store": (["ui", "--run", "TAKEN"], "There is no tracking store"),
    "tracking": (["train", "--tracking.uri", "ftp://x"], "must start with one of"),
    "dashboard": (["submit", "--address", "head:8265", "--", "train"], "must be the URL of a dashboard"),
    "job": (["submit", "--address", "http://127.0.0.1:1", "--", "trian"], "Did you mean 'train'"),
}


def prepare(folder: Path) -> dict[str, str]:
    """Makes the small files that the mistakes name, without importing torch; returns what stands for each word."""
    run, taken, file = folder / "run", folder / "taken", folder / "file"
    run.mkdir()
    taken.mkdir()
    card = {
        "schema": "fieldshift.network", "version": 1, "data": "digit-pairs-left", "task": "classification",
        "classes": ["a", "b"], "channels": 1, "size": [40, 40], "mean": [0.5], "std": [0.5], "network": "tiny-resnet",
        "temporal": "none", "arm": "none",
    }  # fmt: skip
    (run / "network.json").write_text(json.dumps(card))
    (run / "weights.safetensors").touch()
    (taken / "config.yaml").write_text("# fieldshift train\ndata: other\n")
    file.write_text("no policy")
    (folder / "train.yaml").write_text("recipe:\n  epoch: 3\n")
    policy = {
        "schema": "fieldshift.policy", "version": 1, "frames": 3, "reference": "centre", "symmetric": False,
        "fill": "zeros", "interpolation": "bilinear", "inputs": 1, "nodes": 1, "edges": [], "found": {},
    }  # fmt: skip
    (folder / "policy.json").write_text(json.dumps(policy))
    return {
        "RUN": str(run),
        "TAKEN": str(taken),
        "FILE": str(file),
        "CONFIG": str(folder / "train.yaml"),
        "POLICY": str(folder / "policy.json"),
    }


def words_of(name: str, files: dict[str, str]) -> list[str]:
    """The command line of one mistake."""
    return [files.get(word, word) for word in MISTAKES[name][0]]


def answer_all(folder: str) -> None:
    """Makes every mistake, each in a fork of this process that has imported no command yet, and prints JSON.

    Of each: the status, what was said, and the slow packages that were imported by then; and the files that were made.
    """
    files = prepare(Path(folder))
    os.chdir(folder)
    before = {path.name for path in Path(folder).iterdir()}
    answers = {name: answer(words_of(name, files)) for name in MISTAKES}
    made = sorted({path.name for path in Path(folder).iterdir()} - before)
    print(json.dumps({"answers": answers, "made": made}))


def answer(words: list[str]) -> list[Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            status = main(words)
        imported = [package for package in SLOW if package in sys.modules]
        os.write(writing, json.dumps([status, said.getvalue(), imported]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return list(json.loads(told)) if told else [None, "it ended without a word", []]
