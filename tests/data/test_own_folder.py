"""The user's own pictures in folders, against Pillow and plain NumPy."""

import subprocess
import sys

import numpy as np
import pytest
from helpers import carry_out
from PIL import Image

from ntk_tf import data
from ntk_tf.data import decode, own_folder
from ntk_tf.experiments import place
from ntk_tf.experiments.resolving import from_json, resolve
from ntk_tf.reporting import grouping
from ntk_tf.runs import RunDirectoryError, read_json
from ntk_tf.settings import Options
from ntk_tf.settings.config import run_name

CLASSES = ("cat", "dog", "Emu")


def picture(rng, size=(9, 7), mode="RGB"):
    shape = (*size[::-1], 3) if mode == "RGB" else size[::-1]
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode)


def fill(place, rng, count=4, split="test", mode="RGB", sizes=((9, 7),), ending="png"):
    """Pictures of a split of each size in turn; their paths."""
    paths = []
    for number in range(count * len(CLASSES)):
        path = place / split / CLASSES[number % 3] / f"{number}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(rng, sizes[number % len(sizes)], mode).save(path)
        paths.append(path)
    return paths


@pytest.fixture
def folder(tmp_path, rng):
    """Pictures of one size; there is also what is none."""
    place = tmp_path / "pictures"
    fill(place, rng, 6, "train")
    fill(place, rng)
    (place / "train/cat/notes.txt").write_text("no picture")
    (place / "train/cat/.hidden.png").write_text("nor this")
    for hidden in (".checkpoints", "cat/.ipynb_checkpoints", "dog/old/__MACOSX"):
        (place / "train" / hidden).mkdir(parents=True)
        (place / "train" / hidden / "1.png").write_text("nor this")
    (place / "readme.md").write_text("nor this")
    return place


def expected(place, mode="RGB"):
    """Pixels by class, as Pillow has them."""
    return {
        i: sorted(np.asarray(Image.open(path).convert(mode)).tobytes() for path in paths)
        for i, paths in enumerate(
            [path for path in (place / label).rglob("*.*") if path.suffix in (".png", ".PNG")]
            for label in sorted(CLASSES)
        )
    }


def found(split):
    return {
        i: sorted(image.tobytes() for image in split.images[split.labels == i]) for i in range(3)
    }


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
@pytest.mark.parametrize("test", ["test", "validation", "val"])
def test_pictures_of_one_size(tmp_path, rng, mode, channels, test):
    fill(tmp_path / "p", rng, 6, "train", mode, ending="PNG")
    fill(tmp_path / "p", rng, 4, test, mode)
    name = f"{tmp_path}/p/"
    card = data.card(name)
    assert (card.name, card.title, card.shape) == (name, "p", (7, 9, channels))
    assert (card.classes, card.train, card.test, card.photographs) == (3, 18, 12, False)
    assert data.find(name) == "folder"
    data.prepare(name)
    source = data.load(name)
    assert found(source.train) == expected(tmp_path / "p/train", mode)
    assert found(source.test) == expected(tmp_path / "p" / test, mode)
    assert source.classes == ("Emu", "cat", "dog")
    assert not source.crop
    pixels = source.train.images / 255
    np.testing.assert_allclose(source.mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-6)
    assert len(set(source.train.labels[:9])) == 3  # in no order of classes
    np.testing.assert_array_equal(data.load(name).train.images, source.train.images)


def test_a_grey_picture_among_others_has_three_channels(folder, rng):
    picture(rng, mode="L").save(folder / "train/dog/grey.png")
    source = data.load(f"{folder}/")
    assert data.card(f"{folder}/").shape == (7, 9, 3)
    assert (np.ptp(source.train.images, axis=-1) == 0).all(axis=(1, 2)).sum() == 1


def test_pictures_of_many_sizes_are_read_as_photographs(tmp_path, rng):
    """As decoded JPEG files are, whose square is the same but for its outermost pixels."""
    sizes = ((40, 30), (24, 50), (32, 32))
    fill(tmp_path / "p", rng, 3, "train", sizes=sizes)
    paths = fill(tmp_path / "p", rng, 2, "test", sizes=sizes, ending="jpg")
    name = f"{tmp_path}/p/"
    card = data.card(name)
    assert (card.shape, card.photographs) == ((32, 32, 3), True)
    with pytest.raises(data.DataError, match="image_size=None: .* have many sizes; give one"):
        data.load(name)
    source = data.load(name, image_size=14)
    assert source.crop
    assert source.test.images.shape == (6, 16, 16, 3)
    squares = [decode.decode(path.read_bytes(), 16).numpy().astype(int) for path in paths]
    for image in source.test.images.astype(int):
        inner = [np.abs(image - square)[1:-1, 1:-1].max() for square in squares]
        assert min(inner) <= 3


def test_a_card_needs_no_tensorflow(folder):
    code = f"import sys; from ntk_tf import data; print(data.card({f'{folder}/'!r}).train)"
    code += "; sys.exit('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "18\n")


def test_fingerprint_tells_changed_folders_apart(folder, rng):
    name = f"{folder}/"
    prints = [data.card(name).fingerprint] * 2
    (folder / "train/dog/more").mkdir()
    picture(rng).save(folder / "train/dog/more/in_a_folder.png")
    prints.append(data.card(name).fingerprint)
    (folder / "test/dog/1.png").rename(folder / "test/cat/1.png")
    prints.append(data.card(name).fingerprint)
    Image.new("RGB", (9, 7)).save(folder / "test/cat/1.png")  # takes fewer bytes
    prints.append(data.card(name).fingerprint)
    assert len(set(prints)) == 4
    assert data.card(name).train == 19


def removed(*paths):
    def change(place):
        for number, path in enumerate(paths):
            (place / path).rename(place.parent / f"away{number}")

    return change


def written(path, content=b"no picture"):
    return lambda place: (place / path).write_bytes(content)


def saved(path, mode):
    return lambda place: Image.new(mode, (9, 7)).save(place / path)


WRONG = [
    (removed(""), "no such folder; it must hold train and test"),
    (removed("train"), r"must hold train and test \(or validation, or val\).*; it holds test"),
    (removed("train", "test"), "it holds no folder"),
    (removed("test"), "it holds train"),
    (removed("train/cat"), "test has class cat, and train has none of it"),
    (removed("test/cat", "test/dog", "test/Emu"), "test holds no pictures in folders of classes"),
    (
        removed("train/cat", "train/dog", "test/cat", "test/dog"),
        "train has only class Emu; two are",
    ),
    (
        lambda place: [path.rename(path.with_suffix(".heic")) for path in place.glob("*/dog/*")],
        r"train/dog holds \d+.heic and no picture; files are .jpg, ",
    ),
    (
        lambda place: (place / "train/cat/lost.png").symlink_to("nowhere.png"),
        "train/cat/lost.png is a link to what is not there",
    ),
    (written("train/cat/a.png"), "cannot read .*train/cat/a.png .cannot identify image file"),
    (
        saved("test/cat/16.png", "I;16"),
        "cannot read .*16.png .its pixels are I;16; they must be by",
    ),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_wrong_folders_are_one_line(folder, change, message):
    change(folder)
    for read in (data.card, data.find, data.prepare, data.load):
        with pytest.raises(data.DataError, match=message) as error:
            read(f"{folder}/")
        assert str(error.value).startswith(f"dataset={folder}/: ")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["/nowhere/", "/", "~nobody/", "~no.such.user/"])
def test_other_places_are_one_line(name):
    with pytest.raises(data.DataError, match=f"dataset={name}: ") as error:
        data.card(name)
    assert "\n" not in str(error.value)


def test_a_damaged_picture_is_named_when_it_is_read(folder):
    path = folder / "train/cat/3.png"
    path.write_bytes(path.read_bytes()[:120])
    data.card(f"{folder}/")
    with pytest.raises(data.DataError, match=r"cannot read .*train/cat/3\.png \("):
        data.load(f"{folder}/")


def test_headers_are_read_once_a_process(folder, monkeypatch):
    data.card(f"{folder}/")
    monkeypatch.setattr(own_folder, "_opened", None)
    assert data.card(f"{folder}/").shape == (7, 9, 3)


def test_a_run(folder, tmp_path, monkeypatch):
    """Its folder has the checksum, its config.json the names of the classes; it ends if they go."""
    monkeypatch.chdir(folder.parent)
    settings = {"dataset": "pictures/", "arch": "mlp", "arch_args": "depth=2", "epochs": 2}
    config = resolve(**settings)
    assert run_name(config) == f"mlp_x1_pictures-{config.card.fingerprint}_seed0_epochs2_depth2"
    assert config.input_shape == (7, 9, 3)
    result = carry_out(config, Options(tmp_path / "run"))
    assert result["steps"] == 2
    content = read_json(tmp_path / "run/config.json")
    assert content["classes"] == ["Emu", "cat", "dog"]
    folder.rename(tmp_path / "away")
    assert from_json(content).card.shape == (7, 9, 3)
    (tmp_path / "away").rename(folder)
    (folder / "train/dog/1.png").unlink()
    with pytest.raises(RunDirectoryError, match="data"):
        carry_out(resolve(**settings), Options(tmp_path / "run"))


def test_the_folder_one_is_in_has_a_name(folder, monkeypatch):
    monkeypatch.chdir(folder)
    config = resolve(dataset="./", arch="mlp")
    assert run_name(config) == f"mlp_x1_folder-{config.card.fingerprint}_seed0"
    assert grouping.data_title(config, [config]) == "./"


def test_a_report_tells_no_usual_size_of_photographs(tmp_path, rng):
    """config.json says that pictures have many sizes; that of earlier versions did not."""
    for split in ("train", "test"):
        fill(tmp_path / "p", rng, 1, split, sizes=((40, 30), (24, 50)))
    config = resolve(dataset=f"{tmp_path}/p/", image_size=32)
    content = config.to_dict()
    assert content["photographs"] is True
    assert from_json(content) == resolve(lambda _: from_json(content).card, dataset=config.dataset)
    assert "image_size" not in from_json(content).changed()
    assert config.added()["photographs"] is True


def test_more_photographs_than_there_are_is_said_beforehand(tmp_path, rng):
    for split in ("train", "test"):
        fill(tmp_path / "p", rng, 1, split, sizes=((40, 30), (24, 50)))
    config = resolve(dataset=f"{tmp_path}/p/", train_examples=4)
    with pytest.raises(data.DataError, match=r"train_examples=4: .* has 3 train pictures"):
        place.find(config, Options(tmp_path / "run"))
