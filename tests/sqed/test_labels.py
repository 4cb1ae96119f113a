"""OA labels against what the models' logits give by hand; the store."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pipeline.runtime.checkpoints import open_checkpoint
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import checksum, read_json, read_table, write_json, write_table
from pipeline.scenes.dataset import IGNORE
from pipeline.scenes.reading import read_image
from pipeline.segmenters.build import build, load, save
from pipeline.segmenters.data import normalise
from pipeline.segmenters.registry import METHODS
from pipeline.sqed.inference import confidence_histograms, confusion_matrices, infer, pool
from pipeline.sqed.labels import label_patches, summarise
from pipeline.sqed.pictures import heat_map
from pipeline.sqed.schema import CONFIDENCE_EDGES
from pipeline.sqed.settings import LabelOaSettings

LABELS = "pipeline.sqed.labels"
SIDE, CLASSES = 32, ["ground", "roof", "tree"]
INTERIOR = (0, 8, 24, 32)  # of the first patch: left, top, right, bottom


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A build_sqed folder of seven patches, one padded, one wholly ignored."""
    folder = tmp_path / "build" / "toy"
    (folder / "patches").mkdir(parents=True)
    (folder / "labels").mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for number in range(7):
        label = rng.integers(0, 3, (SIDE, SIDE)).astype(np.uint8)
        label[:3] = IGNORE
        left, top, right, bottom = INTERIOR if number == 0 else (0, 0, SIDE, SIDE)
        if number == 0:
            label[:8], label[:, 24:] = IGNORE, IGNORE
        if number == 5:
            label[:] = IGNORE
        Image.fromarray(label).save(folder / "labels" / f"toy_{number}.png")
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "patches" / f"toy_{number}.png")
        rows.append(
            {"patch_id": f"toy_{number}", "dataset": "toy", "unit": f"u{number}", "source": "s.png", "x": 0}
            | {"y": 0, "width": SIDE, "height": SIDE, "left": left, "top": top, "right": right}
            | {"bottom": bottom, "valid": 0.5, "split": "test" if number in (1, 2) else "train"}
        )
    write_table(folder / "patches.parquet", pd.DataFrame(rows))
    facts = {"dataset": "toy", "title": "Toy", "subset": "Toys", "licence": "CC0", "classes": CLASSES}
    colours = [[90, 90, 90], [255, 0, 0], [0, 255, 0]]
    write_json(folder / "counts.json", {**facts, "colours": colours, "units": {"train": 5, "test": 2}})
    return folder


def trained(folder: Path, method: str, seed: int) -> Path:
    """A retrain_segmenter folder whose model has random weights."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    model = build(method, 3, width=0.125, depth=0.5).train()
    with torch.no_grad():
        for _ in range(3):  # running means away from their start
            model(torch.randn(4, 3, SIDE, SIDE))
    config = {"method": method, "title": METHODS[method].title, "classes": CLASSES}
    save(folder, model.state_dict(), {**config, "architecture": {"width": 0.125, "depth": 0.5}})
    write_json(folder / "units.json", {"train": ["v1"], "val": ["v2"]})
    return folder


@pytest.fixture
def methods(tmp_path: Path) -> dict[str, Path]:
    """Two of the methods; what is here does not depend on which."""
    names = ("abcnet", "unetformer")
    return {name: trained(tmp_path / "retrain" / name, name, seed) for seed, name in enumerate(names)}


def run(
    tmp_path: Path, built: Path, methods: dict[str, Path], name: str = "out", pictures: int = 0
) -> dict[str, Any]:
    settings = LabelOaSettings(batch=3, precision="fp32", pictures=pictures)
    (tmp_path / name).mkdir(exist_ok=True)
    with open_checkpoint(tmp_path / "store", say=lambda line: None) as checkpoint:
        return label_patches(built, methods, settings, torch.device("cpu"), checkpoint, tmp_path / name)


def by_hand(folder: Path, built: Path, patch: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Softmax [C,H,W] and pre-classifier map of one patch, and its label."""
    model, _ = load(folder)
    image = np.asarray(Image.open(built / "patches" / f"{patch}.png"))
    with torch.inference_mode():
        output = model(normalise(torch.from_numpy(image.copy()).permute(2, 0, 1)[None]))
    label = np.asarray(Image.open(built / "labels" / f"{patch}.png"))
    return output.logits[0].softmax(0).numpy(), output.features[0].numpy(), label


def test_labels_are_what_the_logits_give_by_hand(
    tmp_path: Path, built: Path, methods: dict[str, Path]
) -> None:
    run(tmp_path, built, methods)
    masks = {}
    for method, folder in methods.items():
        table = read_table(tmp_path / "out" / f"{method}.parquet").set_index("patch_id")
        assert list(table.index) == [f"toy_{number}" for number in (0, 1, 2, 3, 4, 6)]
        for patch in ("toy_1", "toy_6"):
            softmax, features, label = by_hand(folder, built, patch)
            mask = masks[method, patch] = softmax.argmax(0)
            row, known = table.loc[patch], label != IGNORE
            assert row["oa"] == pytest.approx((mask == label)[known].mean())
            assert row["pixels"] == known.sum()
            confusion = np.reshape(row["confusion"], (3, 3))
            assert confusion[1, 2] == ((label == 1) & (mask == 2)).sum()
            assert confusion.sum() == known.sum()
            assert row["confidence"] == pytest.approx(softmax.max(0).mean(), rel=1e-4)
            assert row["entropy"] == pytest.approx(-(softmax * np.log(softmax)).sum(0).mean(), rel=1e-4)
            np.testing.assert_allclose(row["feature"], features.mean((1, 2)), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(row["deviation"], features.std((1, 2)), rtol=1e-3, atol=1e-5)
            # A float sum may put a pixel that lies on an edge into the next bin.
            by_hand_counts = np.histogram(softmax.max(0), CONFIDENCE_EDGES)[0]
            assert np.abs(np.cumsum(row["confidences"]) - np.cumsum(by_hand_counts)).max() <= 2
            assert sum(row["confidences"]) == SIDE**2
    for method in methods:
        table = read_table(tmp_path / "out" / f"{method}.parquet").set_index("patch_id")
        equal = masks["abcnet", "toy_1"] == masks["unetformer", "toy_1"]
        assert table.loc["toy_1", "agreement"] == pytest.approx(equal.mean())


def test_padding_counts_nowhere(tmp_path: Path, built: Path, methods: dict[str, Path]) -> None:
    run(tmp_path, built, methods)
    left, top, right, bottom = INTERIOR
    for method, stride in (("abcnet", 8), ("unetformer", 4)):
        softmax, features, _ = by_hand(methods[method], built, "toy_0")
        row = read_table(tmp_path / "out" / f"{method}.parquet").iloc[0]
        inside = softmax.max(0)[top:bottom, left:right]
        assert row["confidence"] == pytest.approx(inside.mean(), rel=1e-4)
        cells = features[:, top // stride : bottom // stride, left // stride : right // stride]
        np.testing.assert_allclose(row["feature"], cells.mean((1, 2)), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(row["deviation"], cells.std((1, 2)), rtol=1e-3, atol=1e-5)
        assert sum(row["confidences"]) == inside.size


def test_histogram_of_confidences() -> None:
    """Certain pixels are in the last bin, one of probability 1/2 in the seventh, those outside in none."""
    probabilities = torch.tensor([[[1.0, 0.5, 1 - 1e-9, 0.3]]])
    inside = torch.tensor([[[True, True, True, False]]])
    counts = confidence_histograms(probabilities.log(), inside)[0]
    assert counts.nonzero().squeeze(1).tolist() == [6, 127] and counts.sum() == 3
    assert CONFIDENCE_EDGES[6] == 0.5 and (np.diff(CONFIDENCE_EDGES) > 0).all()
    assert CONFIDENCE_EDGES[0] == 0 and CONFIDENCE_EDGES[-1] == 1


def test_pool_takes_whole_cells_only() -> None:
    maps = torch.arange(16.0).view(1, 1, 4, 4).repeat(3, 1, 1, 1)  # 4 cells of 8 pixels a side
    interiors = [(0, 0, 32, 32), (7, 9, 32, 32), (9, 9, 15, 15)]  # the last one holds no whole cell
    means, deviations = pool(maps, interiors, (32, 32))
    assert means.tolist() == [[7.5], [maps[0, 0, 2:, 1:].mean().item()], [7.5]]
    taken = maps[0, 0, 2:, 1:].std(correction=0).item()
    whole = maps[0].std(correction=0).item()
    assert deviations.flatten().tolist() == pytest.approx([whole, taken, whole])
    oblong = torch.arange(8.0).view(1, 1, 2, 4)  # 16 rows, 32 columns of pixels
    assert pool(oblong, [(8, 0, 32, 15)], (16, 32))[0].tolist() == [[2.0]]  # the upper cells but the first


def test_confusion_of_a_batch_is_that_of_its_pixels() -> None:
    rng = np.random.default_rng(3)
    truth = rng.choice([0, 1, 2, IGNORE], (2, 5, 7)).astype(np.uint8)
    predicted = rng.integers(0, 3, (2, 5, 7))
    truth[1, 1:] = IGNORE
    expected = np.zeros((2, 3, 3), int)
    for place in np.ndindex(truth.shape):
        if truth[place] != IGNORE:
            expected[place[0], truth[place], predicted[place]] += 1
    found = confusion_matrices(torch.from_numpy(truth), torch.from_numpy(predicted), 3)
    np.testing.assert_array_equal(found.numpy(), expected)


def test_a_patch_without_labels_is_left_out_and_listed(
    tmp_path: Path, built: Path, methods: dict[str, Path]
) -> None:
    summary = run(tmp_path, built, methods)
    excluded = pd.read_csv(tmp_path / "out" / "excluded.csv")
    assert excluded.to_dict("records") == [{"patch_id": "toy_5", "reason": "no labelled pixel"}]
    assert (summary["patches"], summary["patches_test"], summary["excluded"]) == (6, 2, 1)
    assert sum(one["share_won"] for one in summary["methods"].values()) == pytest.approx(1, abs=1e-3)


def test_a_new_method_does_not_forward_the_others_again(
    tmp_path: Path, built: Path, methods: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    normal = infer

    def counted(model: torch.nn.Module, *rest: Any) -> Any:
        calls.append(type(model).__name__)
        return normal(model, *rest)

    monkeypatch.setattr(f"{LABELS}.infer", counted)
    run(tmp_path, built, {"abcnet": methods["abcnet"]}, "one")
    assert calls == ["ABCNet"] * 3
    assert read_table(tmp_path / "one" / "abcnet.parquet")["agreement"].isna().all()
    run(tmp_path, built, methods, "both")
    assert calls[3:] == ["UNetFormer"] * 3
    run(tmp_path, built, methods, "again")
    assert len(calls) == 6
    assert checksum(tmp_path / "both") == checksum(tmp_path / "again")
    state, config = load(methods["abcnet"])[0].state_dict(), read_json(methods["abcnet"] / "config.json")
    save(methods["abcnet"], {name: value * 2 for name, value in state.items()}, config)
    run(tmp_path, built, methods, "new weights")
    assert calls[6:] == ["ABCNet"] * 3


def test_an_interrupted_run_goes_on_at_the_batch(
    tmp_path: Path, built: Path, methods: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    normal = infer
    calls = []

    def dying(model: torch.nn.Module, *rest: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return normal(model, *rest)

    monkeypatch.setattr(f"{LABELS}.infer", dying)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, built, methods, pictures=2)
    run(tmp_path, built, methods, pictures=2)
    assert len(calls) == 4 + 3  # three of six were done
    monkeypatch.undo()
    (tmp_path / "store").rename(tmp_path / "former store")
    run(tmp_path, built, methods, "whole", pictures=2)
    assert checksum(tmp_path / "out") == checksum(tmp_path / "whole")


def test_every_method_in_one_reading_of_the_patches(
    tmp_path: Path, built: Path, methods: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    normal = read_image

    def counted(path: Path) -> Any:
        read.append(path.stem)
        return normal(path)

    monkeypatch.setattr(f"{LABELS}.read_image", counted)
    run(tmp_path, built, methods, "two")
    others = [name for name in METHODS if name not in methods]
    everyone = methods | {name: trained(tmp_path / "retrain" / name, name, 9) for name in others}
    run(tmp_path, built, everyone, "all")
    assert sorted(read) == sorted(2 * [f"toy_{number}" for number in range(7)])
    tables = {name: read_table(tmp_path / "all" / f"{name}.parquet") for name in everyone}
    masks = {name: by_hand(everyone[name], built, "toy_2")[0].argmax(0) for name in everyone}
    for name, table in tables.items():
        equal = [np.mean(masks[name] == masks[other]) for other in everyone if other != name]
        assert table.set_index("patch_id").loc["toy_2", "agreement"] == pytest.approx(
            np.mean(equal), abs=2e-3
        )


def test_patches_of_different_sizes_keep_their_order(
    tmp_path: Path, built: Path, methods: dict[str, Path]
) -> None:
    patches = read_table(built / "patches.parquet")
    for number, (width, height) in {2: (20, 24), 4: (24, 20)}.items():
        for folder in ("patches", "labels"):
            path = built / folder / f"toy_{number}.png"
            with Image.open(path) as image:
                image.crop((0, 0, width, height)).save(path)
        sizes = {"width": width, "height": height, "right": width, "bottom": height}
        patches.loc[number, list(sizes)] = list(sizes.values())
    write_table(built / "patches.parquet", patches)
    run(tmp_path, built, methods)
    for method in methods:
        table = read_table(tmp_path / "out" / f"{method}.parquet")
        assert list(table["patch_id"]) == [f"toy_{number}" for number in (0, 1, 2, 3, 4, 6)]
        for patch in ("toy_2", "toy_4"):
            softmax, features, label = by_hand(methods[method], built, patch)
            row = table.set_index("patch_id").loc[patch]
            assert row["oa"] == pytest.approx((softmax.argmax(0) == label)[label != IGNORE].mean())
            np.testing.assert_allclose(row["feature"], features.mean((1, 2)), rtol=1e-4, atol=1e-5)


def test_a_patch_of_another_size_than_said_is_an_error(
    tmp_path: Path, built: Path, methods: dict[str, Path]
) -> None:
    Image.new("L", (SIDE, 8)).save(built / "labels" / "toy_3.png")
    with pytest.raises(InputError, match=r"labels/toy_3\.png: expected 32 x 32 px, found 32 x 8"):
        run(tmp_path, built, methods)


def test_a_model_of_another_architecture_is_an_error(
    tmp_path: Path, built: Path, methods: dict[str, Path]
) -> None:
    with pytest.raises(InputError, match="expected a model of the method unetformer, found abcnet"):
        run(tmp_path, built, {"unetformer": methods["abcnet"]})
    (methods["abcnet"] / "model.safetensors").unlink()
    (methods["unetformer"] / "model.safetensors").rename(methods["abcnet"] / "model.safetensors")
    with pytest.raises(InputError, match=r"not the weights that config\.json describes"):
        run(tmp_path, built, {"abcnet": methods["abcnet"]})


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_too_little_memory_names_the_setting(
    tmp_path: Path, built: Path, methods: dict[str, Path], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(f"{LABELS}.infer", full)
    said = r"abcnet: no memory on cpu for 3 patches of 32 x 32 px at a time; lower label_oa\.batch"
    with pytest.raises(InputError, match=said):
        run(tmp_path, built, methods)


def test_a_model_that_gives_no_numbers_is_an_error(
    tmp_path: Path, built: Path, methods: dict[str, Path]
) -> None:
    model, config = load(methods["abcnet"])
    save(
        methods["abcnet"], {name: value * float("nan") for name, value in model.state_dict().items()}, config
    )
    with pytest.raises(InputError, match="abcnet: its logits are not finite"):
        run(tmp_path, built, methods)


def test_pictures_are_what_the_models_say(tmp_path: Path, built: Path, methods: dict[str, Path]) -> None:
    run(tmp_path, built, methods, pictures=2)
    folder = tmp_path / "out" / "pictures"
    facts = read_json(folder / "pictures.json")
    assert [(row["patch_id"], row["unit"]) for row in facts["patches"]] == [("toy_1", "u1"), ("toy_2", "u2")]
    assert (facts["title"], facts["classes"]) == ("Toy", ["ground", "roof", "tree"])
    for row in facts["patches"]:
        patch = row["patch_id"]
        assert checksum(folder / patch / "image.png") == checksum(built / "patches" / f"{patch}.png")
        assert checksum(folder / patch / "truth.png") == checksum(built / "labels" / f"{patch}.png")
        for method in methods:
            softmax, features, _ = by_hand(methods[method], built, patch)
            mask = np.asarray(Image.open(folder / patch / f"{method}_mask.png"))
            assert (mask == softmax.argmax(0)).mean() > 0.999
            drawn = np.asarray(Image.open(folder / patch / f"{method}_features.png"))
            assert drawn.shape == features.shape[1:]
            assert np.abs(drawn - heat_map(features).astype(int)).max() <= 1
            table = read_table(tmp_path / "out" / f"{method}.parquet").set_index("patch_id")
            assert row["oa"][method] == table.loc[patch, "oa"]


def test_another_number_of_pictures_sends_only_their_batches_again(
    tmp_path: Path, built: Path, methods: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, built, methods, "none")
    assert not (tmp_path / "none" / "pictures").exists()
    calls = []
    normal = infer

    def counted(model: torch.nn.Module, images: torch.Tensor, *rest: Any) -> Any:
        calls.append(len(images))
        return normal(model, images, *rest)

    monkeypatch.setattr(f"{LABELS}.infer", counted)
    run(tmp_path, built, methods, "two", pictures=2)
    assert calls == [3, 3]  # both chosen patches are in the first batch, which each method sees once more
    run(tmp_path, built, methods, "fewer", pictures=1)
    assert len(calls) == 2
    assert [path.name for path in (tmp_path / "fewer" / "pictures").iterdir() if path.is_dir()] == ["toy_2"]


def test_a_method_that_saw_a_unit_of_the_patches_is_an_error(
    tmp_path: Path, built: Path, methods: dict[str, Path]
) -> None:
    write_json(methods["abcnet"] / "units.json", {"train": ["v1"], "val": ["u3"]})
    with pytest.raises(InputError, match="u3 is in both RS-SQED and training of ABCNet"):
        run(tmp_path, built, methods)


def test_other_classes_and_labels_beyond_them_are_errors(
    tmp_path: Path, built: Path, methods: dict[str, Path]
) -> None:
    Image.new("L", (SIDE, SIDE), 3).save(built / "labels" / "toy_4.png")
    with pytest.raises(InputError, match=r"toy_4\.png: expected class indices below 3"):
        run(tmp_path, built, methods)
    counts = read_json(built / "counts.json")
    write_json(built / "counts.json", {**counts, "classes": ["a", "b", "c"]})
    with pytest.raises(InputError, match="expected a model of the classes"):
        run(tmp_path, built, methods)


def test_summary_on_a_case_worked_by_hand() -> None:
    patches = pd.DataFrame({"patch_id": ["p", "q", "r"], "split": ["train", "test", "test"]})
    confusions = [[8, 0, 2, 0], [4, 2, 1, 3], [0, 5, 5, 0]]  # truths 8:2, 6:4, 5:5
    first = pd.DataFrame({"oa": [0.8, 0.7, 0.0], "confusion": confusions})
    second = pd.DataFrame({"oa": [0.6, 0.7, 0.2], "confusion": confusions})
    found = summarise({"a": first, "b": second}, patches, 2)
    assert found["majority_rate"] == pytest.approx((0.8 + 0.6 + 0.5) / 3, abs=1e-4)
    assert found["majority_rate_test"] == pytest.approx(0.55)
    assert found["gap_of_best_two"] == pytest.approx((0.2 + 0 + 0.2) / 3, abs=1e-4)
    assert found["methods"]["a"]["mean_oa_test"] == pytest.approx(0.35)
    assert found["methods"]["a"]["share_won"] == pytest.approx(0.5)
