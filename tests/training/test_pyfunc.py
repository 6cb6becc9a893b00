"""The MLflow model of a trained network: loaded in a fresh process, it answers as the network does."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fieldshift.data import LoadingConfig, load_dataset
from fieldshift.errors import UserError
from fieldshift.motions import Policy
from fieldshift.training import NetworkCard, load_network, save_network
from fieldshift.training.pyfunc import images_of, picture_of, save_pyfunc
from fieldshift.training.step import forward

pytestmark = pytest.mark.filterwarnings("ignore:.*type hint is inferred as AnyType")  # MLflow warns of its own types

SIZE = (20, 24)
CLASSES = ("ant", "bee", "cat")


def saved(folder: Path, *, task: str = "classification", form: str = "video", channels: int = 3) -> Path:
    policy = json.loads(Policy.single("translate_x", 0.25, frames=3).to_json())
    card = NetworkCard(
        data="folder:somewhere", task=task, classes=CLASSES, channels=channels, size=SIZE, mean=(0.5,) * channels,
        std=(0.25,) * channels, network="tiny-resnet" if task == "classification" else "tiny-resnet-fcn", temporal="tsm",
        arm="das" if form == "video" else "das-folded", policy=policy, form=form,
    )  # fmt: skip
    torch.manual_seed(0)
    save_network(folder / "run", card.build(), card)
    save_pyfunc(folder / "run", folder / "model")
    return folder / "model"


def loaded(folder: Path) -> Any:
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(str(folder))


def pictures(count: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *SIZE, channels), dtype=np.uint8)


@pytest.mark.parametrize("form", ["video", "folded"])
def test_answers_are_the_networks(tmp_path: Path, form: str) -> None:
    model = loaded(saved(tmp_path, form=form))
    arrays = pictures(5)
    network, card = load_network(tmp_path / "run")
    with torch.no_grad():
        video = card.plan().evaluation_video(torch.from_numpy(arrays).permute(0, 3, 1, 2))
        expected = network.fuse(network(video)).softmax(1).max(1)
    found = model.predict(pd.DataFrame({"image": list(arrays)}))
    assert list(found["class"]) == [CLASSES[int(index)] for index in expected.indices]
    np.testing.assert_allclose(found["probability"], expected.values, rtol=1e-5)


def test_files_and_arrays_answer_alike(tmp_path: Path) -> None:
    model = loaded(saved(tmp_path))
    large = np.random.default_rng(1).integers(0, 256, (50, 64, 3), dtype=np.uint8)
    Image.fromarray(large).save(tmp_path / "large.png")
    by_file = model.predict(pd.DataFrame({"image": [str(tmp_path / "large.png")]}))
    by_array = model.predict({"image": [large]})
    pd.testing.assert_frame_equal(by_file, by_array)
    for count in (1, 2):
        by_name = model.predict({"image": [str(tmp_path / "large.png")] * count})
        pd.testing.assert_frame_equal(by_name, pd.concat([by_array] * count, ignore_index=True))


def test_segmenters_return_masks(tmp_path: Path) -> None:
    model = loaded(saved(tmp_path, task="segmentation", channels=1))
    found = model.predict(pd.DataFrame({"image": list(pictures(2, channels=1))}))
    assert [mask.shape for mask in found["mask"]] == [SIZE, SIZE]
    assert all(set(np.unique(mask)) <= {0, 1, 2} for mask in found["mask"])


@pytest.mark.parametrize("size", [SIZE, (11, 15), (20, 30), (60, 31), (90, 96)], ids=str)
def test_a_mask_lies_over_its_picture_and_is_the_networks_of_the_trainings_reading(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    model = loaded(saved(tmp_path, task="segmentation"))
    pixels = np.random.default_rng(2).integers(0, 256, (*size, 3), dtype=np.uint8)
    root = tmp_path / "scenes"
    for part in ("train", "test"):  # data that are read by the training's own code
        for kind, array in (("images", pixels), ("masks", (pixels[..., 0] > 127).astype(np.uint8))):
            (root / part / kind).mkdir(parents=True)
            Image.fromarray(array).save(root / part / kind / f"{part}.png")
    data = load_dataset(f"voc:{root}", loading=LoadingConfig(size=SIZE, workers=0))
    network, card = load_network(tmp_path / "run")
    plan = card.plan()
    with torch.no_grad():
        logits, _ = forward(network, network, plan.evaluation_video(data.test.gather(torch.tensor([0]))[0]), plan)
    scale = min(1.0, SIZE[0] / size[0], SIZE[1] / size[1])
    height, width = (round(side * scale) for side in size)
    inner = logits.argmax(1)[0, :height, :width].numpy()
    rows, columns = (
        ((np.arange(side) + 0.5) * new / side).astype(int) for side, new in zip(size, inner.shape, strict=True)
    )
    for given in (pixels, str(root / "test" / "images" / "test.png")):
        (mask,) = model.predict({"image": [given]})["mask"]
        assert mask.shape == size
        np.testing.assert_array_equal(mask, inner[rows][:, columns])


def test_images_of_a_set_with_a_narrower_crop_are_read_with_it(tmp_path: Path) -> None:
    saved(tmp_path)
    _, card = load_network(tmp_path / "run")
    assert card.reader().cover == 1.0
    assert dataclasses.replace(card, data="imagenet").reader().cover == 0.875


def test_a_fresh_process_loads_it_without_pickle(tmp_path: Path) -> None:
    """Every way to unpickle raises there."""
    model = saved(tmp_path)
    assert not [path for path in model.rglob("*") if path.suffix in {".pkl", ".pickle", ".pt", ".pth"}]
    code = (
        "import sys, pickle, mlflow.pyfunc, numpy as np, fieldshift.training.pyfunc\n"
        "def refuse(*_a, **_k): raise RuntimeError('unpickled')\n"
        "pickle.load = pickle.loads = pickle.Unpickler = refuse\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "print(list(model.predict({'image': [np.zeros((20, 24, 3), np.uint8)]}).columns))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(model)], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "['class', 'probability']", done.stderr[-500:]


def test_the_signature_names_what_goes_in_and_out(tmp_path: Path) -> None:
    signature = loaded(saved(tmp_path)).metadata.signature
    assert signature.inputs.input_names() == ["image"]
    assert signature.outputs.input_names() == ["class", "probability"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 4), np.uint8), "(4, 4, 4)"),
        (np.zeros((4,), np.uint8), "(4,)"),
        (np.full((4, 4), 300), "values from 0 to 255"),
        (np.zeros((1, 9), np.uint8), "1 x 9 px"),
        ("nowhere.png", "nowhere.png"),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, given: Any, words: str) -> None:
    saved(tmp_path)
    _, card = load_network(tmp_path / "run")
    with pytest.raises(UserError) as error:
        picture_of(given, 7, card.reader())
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("given", [pd.DataFrame({"picture": []}), {"file": []}, 5])
def test_other_input_is_refused(given: Any) -> None:
    with pytest.raises(UserError, match=r"reads|image"):
        list(images_of(given))
