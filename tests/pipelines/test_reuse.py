"""What is reused, and on which data: a table of situations with the right value for each."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fieldshift.cli import main
from fieldshift.data import LoadingOverrides, load_dataset
from fieldshift.data.problems import MeaninglessDataError
from fieldshift.errors import UserError
from fieldshift.experiment.data_record import read_record
from fieldshift.run_folder import read_result
from fieldshift.training import load_network
from pipelines.run_data import check_split_stays, load_as_in_run, loading_of

QUICK = ["--recipe.epochs", "1", "--recipe.batch", "8", "--tracking.enabled", "false"]
AS_IN_TRAINING = LoadingOverrides()


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What happens to the data after the training, what evaluation is asked for, and what has to come of it.

    change: what is done; it returns the images, by class and content, that the test part loses and gains. said: a note's
    words, none where there is no note. refused: words of the refusal.
    """

    change: Callable[[Any], tuple[set[tuple[str, bytes]], set[tuple[str, bytes]]] | None] = lambda trained: None
    given: LoadingOverrides = AS_IN_TRAINING
    data: Callable[[Any], str | None] = lambda trained: None
    said: str = ""
    refused: str = ""
    size: tuple[int, int] = (12, 12)


def copy_a_tested_image(trained: Any) -> None:
    path = trained.path(tested=True)
    shutil.copy(path, path.with_name("copy.png"))


def copy_a_tested_image_over_one_trained_on(trained: Any) -> None:
    shutil.copy(trained.path(tested=True), trained.path(tested=False))


def losing_a_tested_image(trained: Any) -> tuple[set[tuple[str, bytes]], set[tuple[str, bytes]]]:
    path = trained.path(tested=True)
    lost = {(path.parent.name, path.read_bytes())}
    path.unlink()
    return lost, set()


def relabelling_a_tested_image(trained: Any) -> tuple[set[tuple[str, bytes]], set[tuple[str, bytes]]]:
    path = trained.path(tested=True)
    label, content = path.parent.name, path.read_bytes()
    trained.relabel(path)
    return {(label, content)}, {(trained.other(label), content)}


def painting_a_tested_image(trained: Any) -> tuple[set[tuple[str, bytes]], set[tuple[str, bytes]]]:
    path = trained.path(tested=True)
    lost = {(path.parent.name, path.read_bytes())}
    trained.noise(77_777).save(path)
    return lost, {(path.parent.name, path.read_bytes())}


def copied(trained: Any) -> str:
    shutil.copytree(trained.root, trained.root.with_name("copy"))
    return f"folder:{trained.root.with_name('copy')}"


def linked(trained: Any) -> str:
    trained.root.with_name("link").symlink_to(trained.root)
    return f"folder:{trained.root.with_name('link')}"


def relative(trained: Any) -> str:
    return f"folder:{os.path.relpath(trained.root)}"


def with_other_classes(trained: Any) -> str:
    shutil.copytree(trained.root, trained.root.with_name("other"))
    (trained.root.with_name("other") / "bee").rename(trained.root.with_name("other") / "02")
    return f"folder:{trained.root.with_name('other')}"


def with_classes_in_capitals(trained: Any) -> str:
    shutil.copytree(trained.root, trained.root.with_name("capitals"))
    (trained.root.with_name("capitals") / "bee").rename(trained.root.with_name("capitals") / "BEE")
    return f"folder:{trained.root.with_name('capitals')}"


SITUATIONS = {
    "nothing": Situation(),
    "workers": Situation(given=LoadingOverrides(workers=2)),
    "memory": Situation(given=LoadingOverrides(memory=1)),
    "a setting given as it is by default": Situation(given=LoadingOverrides(workers=4, memory=2048, channels=3)),
    "its own share": Situation(given=LoadingOverrides(test_share=0.5)),
    "another size": Situation(
        given=LoadingOverrides(size=(16, 16)), size=(16, 16), said="The images are 16 x 16 px; the network was trained on 12"
    ),
    "another share": Situation(given=LoadingOverrides(test_share=0.2), refused="--loading.test_share is 0.2, but"),
    "a limit to train": Situation(given=LoadingOverrides(train_limit=5), refused="--loading.train_limit is 5, but"),
    "arrays' option": Situation(data=lambda trained: "digit-pairs-left", refused="reads 3 channel"),
    "its own data": Situation(data=lambda trained: f"folder:{trained.root}"),
    "its own data by a relative path": Situation(data=relative),
    "its own data by a link": Situation(data=linked),
    "its own data copied": Situation(data=copied),
    "its own share of a copy": Situation(data=copied, given=LoadingOverrides(test_share=0.5)),
    "another share of a copy": Situation(
        data=copied, given=LoadingOverrides(test_share=0.2), refused="with their split (test_share 0.5); leave it out."
    ),
    "a folder that grew": Situation(
        change=lambda trained: trained.add(30), said="30 images of folder:DATA skipped, in neither part"
    ),
    "a folder that grew, and workers": Situation(
        change=lambda trained: trained.add(30), given=LoadingOverrides(workers=2), said="30 images of folder:DATA"
    ),
    "fewer to train": Situation(
        change=lambda trained: trained.path(tested=False).unlink(), said="has changed since the training: 1 gone"
    ),
    "fewer to test": Situation(change=losing_a_tested_image, said="has changed since the training: 1 gone"),
    "a tested image relabelled": Situation(
        change=relabelling_a_tested_image, said="has changed since the training: 1 relabelled"
    ),
    "an image trained on relabelled": Situation(
        change=lambda trained: trained.relabel(trained.path(tested=False)), said="has changed since the training: 1 relabelled"
    ),
    "an image trained on painted": Situation(
        change=lambda trained: trained.noise(88_888).save(trained.path(tested=False)),
        said="the training: 1 with another content",
    ),
    "a tested image painted": Situation(change=painting_a_tested_image, said="the training: 1 with another content"),
    "renamed": Situation(
        change=lambda trained: [path.rename(path.with_name(f"x{path.name}")) for path in trained.root.rglob("*.png")] and None,
        said="the training: 24 renamed",
    ),
    "a tested image copied": Situation(change=copy_a_tested_image, said="1 image of folder:DATA skipped, in neither part"),
    "a tested image copied over one trained on": Situation(
        change=copy_a_tested_image_over_one_trained_on, said="the training: 1 with another content"
    ),
    "times": Situation(change=lambda trained: os.utime(trained.path(tested=True), (1, 1))),
    "classes by other names": Situation(data=with_other_classes, refused="are not the network's: it has 2 ('02', 'ant')"),
}  # fmt: skip


@pytest.mark.parametrize("name", SITUATIONS)
def test_the_images_that_are_tested(name: str, trained: Any) -> None:
    situation = SITUATIONS[name]
    lost, gained = situation.change(trained) or (set(), set())
    data, card = situation.data(trained), load_network(trained.run)[1]
    if situation.refused:
        with pytest.raises(UserError) as refusal:
            load_as_in_run(trained.run, card, situation.given, data)
        assert situation.refused in str(refusal.value)
        assert len(str(refusal.value).splitlines()) == 1
        return
    found = load_as_in_run(trained.run, card, situation.given, data)
    assert trained.images_of(found.dataset) == trained.tested - lost | gained
    assert found.dataset.size == situation.size
    said = situation.said.replace("DATA", str(trained.root))
    assert [said in note for note in found.notes] == [True] * bool(said)


def test_classes_are_matched_as_folders_are(trained: Any) -> None:
    card = load_network(trained.run)[1]
    dataset = load_as_in_run(trained.run, card, AS_IN_TRAINING, with_classes_in_capitals(trained)).dataset
    assert dataset.classes == trained.classes
    labels = {(trained.classes[int(label)], content) for label, (_, content) in
              zip(dataset.test.targets, in_order(trained, dataset), strict=True)}  # fmt: skip
    assert labels == trained.tested


def in_order(trained: Any, dataset: Any) -> list[tuple[str, bytes]]:
    files = [Path(dataset.test.files(place)[0]) for place in range(len(dataset.test))]
    return [(path.parent.name, path.read_bytes()) for path in files]


@pytest.mark.parametrize(("asked", "is_refused"), [(3, False), (4, False), (5, True)])
def test_no_more_images_are_tested_than_are_known_to_be_test_images(asked: int, is_refused: bool, trained: Any) -> None:
    kept = replace(loading_of(trained.run), test_limit=4)  # type: ignore[type-var]
    given, record = LoadingOverrides(test_limit=asked), read_record(trained.run)
    refused = pytest.raises(UserError, match=r"--loading.test_limit is 5, .* with test_limit 4, .* give 4 or fewer\.$")
    with refused if is_refused else nullcontext():
        check_split_stays(trained.run, kept, given, record)
    check_split_stays(trained.run, kept, given, None)  # an older run, whose test images are not known
    check_split_stays(
        trained.run, replace(kept, test_limit=1000), LoadingOverrides(test_limit=2000), record
    )  # all known


def test_the_notes_on_new_data_count_every_image_once(made: Any, tmp_path: Path) -> None:
    for number in range(8):
        file = tmp_path / "new" / made.classes[number >= 6] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        made.noise(7000 + number).convert("L").save(file)
    dataset = load_as_in_run(made.run, load_network(made.run)[1], AS_IN_TRAINING, f"folder:{tmp_path / 'new'}").dataset
    (note,) = [str(each) for each in dataset.findings if "is grey and is read as RGB" in str(each)]
    assert "(and 7 more)" in note


def test_a_picture_of_two_classes_in_new_data_is_named(made: Any, tmp_path: Path) -> None:
    for name in made.classes:
        (tmp_path / "new" / name).mkdir(parents=True)
        made.noise(1).save(tmp_path / "new" / name / "same.png")
        made.noise(len(name) + ord(name[0])).save(tmp_path / "new" / name / "other.png")
    card, data = load_network(made.run)[1], f"folder:{tmp_path / 'new'}"
    with pytest.raises(MeaninglessDataError, match=r"ant/same\.png.*bee/same\.png|bee/same\.png.*ant/same\.png"):
        load_as_in_run(made.run, card, AS_IN_TRAINING, data)
    assert len(load_as_in_run(made.run, card, LoadingOverrides(accept=["two-labels"]), data).dataset.test) == 4


def test_colour_for_a_grey_network_is_refused_without_advice_that_it_cannot_follow(made: Any, tmp_path: Path) -> None:
    grey = load_network(made.run)[1]
    grey = replace(grey, channels=1, mean=grey.mean[:1], std=grey.std[:1])
    with pytest.raises(UserError) as caught:
        load_as_in_run(made.run, grey, AS_IN_TRAINING, f"folder:{made.root}")
    assert "all images are read as grey; save it as grey, or train with --loading.channels 3" in str(caught.value)


def test_fields_are_compared_on_data_that_are_elsewhere_now(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare-fields", "--runs", str(trained.run), "--images", "2", "--tracking.enabled", "false", "--out"]
    trained.root.rename(tmp_path / "elsewhere")
    assert main([*words, str(tmp_path / "fields")]) == 2
    assert "if it is elsewhere now, add --data folder:PATH." in capsys.readouterr().err
    assert not (tmp_path / "fields").exists()
    assert main([*words, str(tmp_path / "fields"), "--data", f"folder:{tmp_path / 'elsewhere'}"]) == 0


def test_evaluate_scores_what_predict_says_of_those_images(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained.add(30)
    files = [path for path in trained.root.rglob("*.png") if (path.parent.name, path.read_bytes()) in trained.tested]
    assert main(["predict", "--run", str(trained.run), "--json", *map(str, files)]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    right = [answer["classes"][0]["class"] == Path(answer["file"]).parent.name for answer in answers]
    out = tmp_path / "scored"
    assert main(["evaluate", "--run", str(trained.run), "--loading.workers", "0", "--out", str(out)]) == 0
    result = read_result(out)
    assert result["score"] == pytest.approx(np.mean(right))
    assert result["samples"] == len(files)
    assert result["data"]["notes"] == [capsys.readouterr().out.splitlines()[1]]  # below how the data were read
    assert not any(answer["trained_on"] for answer in answers)


def test_data_that_are_elsewhere_now_are_named_with_the_way_out(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = trained.run / "network.json"
    card.write_text(card.read_text().replace(f"folder:{trained.root}", f"folder:{trained.root.name}"))
    words = ["evaluate", "--run", str(trained.run), "--loading.workers", "0", "--out", str(tmp_path / "scored")]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(words) == 2
    said = capsys.readouterr().err
    assert f"does not exist in {tmp_path / 'elsewhere'}; give" in said
    assert f"{trained.run} was trained on it: if it is elsewhere now, add --data folder:PATH." in said
    monkeypatch.chdir(trained.root.parent)
    assert main(words) == 0


def test_predict_names_what_the_network_was_trained_on(trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", "--run", str(trained.run), *(str(trained.path(tested=tested)) for tested in (True, False))]
    assert main(words) == 0
    assert "1 of these 2 images is among those that the network was trained on" in capsys.readouterr().out


def test_images_that_were_trained_on_are_counted_where_the_data_name_the_test_part(made: Any, tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in made.classes:
            (tmp_path / part / name).mkdir(parents=True)
    for number in range(4):
        made.noise(5000 + number).save(tmp_path / "train" / made.classes[number % 2] / f"{number}.png")
        made.noise(6000 + number).save(tmp_path / "test" / made.classes[number % 2] / f"{number}.png")
    seen = made.path(tested=False)
    shutil.copy(seen, tmp_path / "test" / seen.parent.name / "seen.png")
    card = load_network(made.run)[1]
    (note,) = load_as_in_run(made.run, card, LoadingOverrides(), f"folder:{tmp_path}").notes
    assert note.startswith("1 of the 5 test images is among those that the network was trained on")


@pytest.mark.parametrize("share", [(), ("--loading.test_share", "0.5")])
def test_all_images_of_a_new_folder_are_scored_unless_a_share_is_asked_for(
    share: tuple[str, ...], made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "new" / made.classes[number >= 6] / f"{number}.png" for number in range(8)]
    for number, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        made.noise(7000 + number).save(file)
    words = ["--data", f"folder:{tmp_path / 'new'}", "--out", str(tmp_path / "scored"), *share]
    assert main(["evaluate", "--run", str(made.run), "--loading.workers", "0", *words]) == 0
    said, *scored = capsys.readouterr().out.splitlines()
    result = read_result(tmp_path / "scored")
    if share:
        assert result["samples"] == 4
        assert "a share of 0.5 of each class is held out" in said
        return
    assert main(["predict", "--run", str(made.run), "--json", *map(str, files)]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    right = [answer["classes"][0]["class"] == Path(answer["file"]).parent.name for answer in answers]
    assert (result["samples"], result["score"]) == (8, pytest.approx(np.mean(right)))
    assert result["data"]["most_frequent"] == {"class": made.classes[0], "share": 0.75}
    note = f"note: Always naming {made.classes[0]}, the most frequent class of the test images, would score 75.0%; no better: "
    assert [line.startswith(note) for line in scored if line.startswith("note:")] == [True] * int(
        np.mean(right) <= 0.75
    )
    assert "no part to test on, so none is kept for training; 8 to test; " in said
    learned = {f"{name}/{path.name}" for name in made.classes for path in (made.root / name).iterdir()
               if (name, path.read_bytes()) not in made.tested}  # fmt: skip
    equal = len(learned & {str(file.relative_to(tmp_path / "new")) for file in files})
    assert equal > 0
    assert [line.startswith(f"The names of {equal} of the 8 test images are those of") for line in scored].count(
        True
    ) == 1


def test_scenes_whose_classes_stand_in_another_order_are_scored_alike(scenes: Path, tmp_path: Path) -> None:
    root, run = tmp_path / "scenes", tmp_path / "run"
    shutil.copytree(scenes, root)
    words = ["--task", "segmentation", "--network", "tiny-resnet-fcn", *QUICK]
    assert main(["train", "--data", f"voc:{scenes}", "--out", str(run), *words]) == 0
    (root / "classes.txt").write_text("square\nground\n")
    for path in (root / "SegmentationClass").iterdir():
        mask = np.array(Image.open(path))
        Image.fromarray(np.where(mask == 255, 255, 1 - np.minimum(mask, 1)).astype(np.uint8)).save(path)
    scores = []
    for place, data in enumerate((scenes, root)):
        assert main(["evaluate", "--run", str(run), "--data", f"voc:{data}", "--out", str(tmp_path / str(place))]) == 0
        scores.append(read_result(tmp_path / str(place)))
    assert scores[0]["score"] == scores[1]["score"] == read_result(run)["row"]["score"]
    dataset = load_as_in_run(run, load_network(run)[1], LoadingOverrides(), f"voc:{root}").dataset
    masks = dataset.test.gather(torch.arange(len(dataset.test)))[1]
    assert torch.equal(masks, load_dataset(f"voc:{scenes}").test.gather(torch.arange(len(masks)))[1])
