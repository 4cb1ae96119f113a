from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from pipeline.runtime.checkpoints import Checkpoint, open_checkpoint
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_table, write_json, write_table
from pipeline.sqa.model import QualityModel
from pipeline.sqa.prediction import load_head, predict, save_head
from pipeline.sqa.settings import TrainSqaSettings
from pipeline.sqa.tables import HeadTable, head_table, read_features
from pipeline.sqa.training import train, two_stage_schedule
from tests.sqa.synthetic import WIDTHS, write_sqed
from tests.sqa.test_model import settings as model_settings

CPU = torch.device("cpu")


def settings(**changes: Any) -> TrainSqaSettings:
    values: dict[str, Any] = {
        **{"epochs": 8, "batch_size": 32, "learning_rate": 2e-3, "weight_decay": 0.01},
        **{"warmup_epochs": 1, "step_epochs": 5, "step_factor": 0.1},
    }
    return TrainSqaSettings(**(values | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sqed")
    write_sqed(root, units=15)
    return root


def table(folder: Path, split: str, method: str = "unetformer") -> HeadTable:
    index = read_table(folder / "assemble_sqed/index.parquet")
    semantic = read_features(folder / "encode_semantics/clip_rs/features.parquet")
    ids = index.loc[index["split"] == split, "patch_id"]
    return head_table(folder / f"assemble_sqed/methods/{method}.parquet", semantic, ids)


def fit(data: HeadTable, place: Path, seed: int = 0, **changes: Any) -> tuple[QualityModel, pd.DataFrame]:
    with open_checkpoint(place, say=lambda _: None) as checkpoint:
        model = train(data, model_settings(), settings(**changes), seed, CPU, checkpoint)
        return model, checkpoint.curves()


def equal(first: QualityModel, second: QualityModel) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_learns_within_the_data_sets(folder: Path, tmp_path: Path) -> None:
    """Better on held-out units than each data set's mean, which the world's causes make far from perfect."""
    training, test = table(folder, "train"), table(folder, "test")
    model, curves = fit(training, tmp_path)
    found = predict(model, test, CPU)
    assert stats.spearmanr(found, test.accuracy).statistic > 0.8
    assert float(np.sqrt(np.mean((found - test.accuracy.numpy()) ** 2))) < 0.6 * float(test.accuracy.std())
    assert curves["epoch"].tolist() == list(range(1, 9))
    assert curves["loss"].iloc[-1] < 0.3 * curves["loss"].iloc[0]
    assert predict(model, test, CPU, batch_size=7) == pytest.approx(found, abs=1e-6)


def test_interrupted_training_ends_bit_identical(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = table(folder, "train")
    whole, curves = fit(data, tmp_path / "whole", epochs=4)

    def stop(self: Checkpoint, step: int) -> None:
        self.save(step)
        if step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(data, tmp_path / "cut", epochs=4)
    torch.manual_seed(99)  # another process has another random state
    resumed, resumed_curves = fit(data, tmp_path / "cut", epochs=4)
    assert equal(whole, resumed)
    pd.testing.assert_frame_equal(curves, resumed_curves)
    again, _ = fit(data, tmp_path / "cut", epochs=4)  # the final state is kept
    assert equal(whole, again)


def test_seed_decides(folder: Path, tmp_path: Path) -> None:
    data = table(folder, "train")
    first, second, other = (
        fit(data, tmp_path / str(place), seed=seed, epochs=1)[0] for place, seed in enumerate((0, 0, 1))
    )
    assert equal(first, second) and not equal(first, other)


def test_schedule_warms_up_then_steps() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    rates = settings(learning_rate=1.0, warmup_epochs=2, step_epochs=3, step_factor=0.5)
    schedule = two_stage_schedule(optimizer, rates, batches=10)
    found = []
    for _ in range(90):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert found[:20] == pytest.approx([0.1 + 0.9 * step / 20 for step in range(20)])
    assert found[20:50] == pytest.approx([1.0] * 30)
    assert found[50:80] == pytest.approx([0.5] * 30)
    assert found[80:] == pytest.approx([0.25] * 10)


def test_constant_labels_train(folder: Path, tmp_path: Path) -> None:
    data = table(folder, "train")
    model, _ = fit(data._replace(accuracy=torch.ones_like(data.accuracy)), tmp_path, epochs=1)
    assert predict(model, data, CPU).min() > 0.9


def test_saved_heads_predict_the_same(folder: Path, tmp_path: Path) -> None:
    data = table(folder, "train")
    model, _ = fit(data, tmp_path / "c", epochs=1)
    save_head(tmp_path / "unetformer_0.safetensors", model)
    config = {
        "model": model_settings().model_dump(),
        "semantic_width": data.semantic.shape[2],
        "segmentation_widths": {"unetformer": WIDTHS["unetformer"]},
    }
    write_json(tmp_path / "config.json", config)
    loaded = load_head(tmp_path, config, "unetformer", 0)
    assert np.array_equal(predict(loaded, data, CPU), predict(model, data, CPU))
    with pytest.raises(InputError, match="heads are there for unetformer"):
        load_head(tmp_path, config, "abcnet", 0)
    (tmp_path / "unetformer_0.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match="the weights that config"):
        load_head(tmp_path, config, "unetformer", 0)


def test_table_follows_the_asked_order_and_leaves_out_unlabelled(folder: Path, tmp_path: Path) -> None:
    semantic = read_features(folder / "encode_semantics/clip_rs/features.parquet")
    frame = read_table(folder / "assemble_sqed/methods/abcnet.parquet")
    write_table(tmp_path / "m.parquet", frame.iloc[::-1].iloc[:20])
    asked = frame["patch_id"].iloc[-25:]
    found = head_table(tmp_path / "m.parquet", semantic, asked, tokens=4)
    assert found.patch_ids.tolist() == asked.iloc[-20:].tolist()
    assert found.semantic.shape == (20, 4, 16)
    row = frame.iloc[-3]
    assert float(found.accuracy[17]) == pytest.approx(row["oa"])
    assert found.segmentation[17].numpy() == pytest.approx(row["feature"])


def test_segmentation_feature_is_made_of_its_inputs(folder: Path) -> None:
    path = folder / "assemble_sqed/methods/abcnet.parquet"
    semantic = read_features(folder / "encode_semantics/clip_rs/features.parquet")
    frame = read_table(path)
    found = head_table(path, semantic, frame["patch_id"], inputs=["confidence", "deviation", "mean"])
    row = frame.iloc[7]
    expected = [row["confidence"], *row["deviation"], *row["feature"]]
    assert found.segmentation[7].numpy() == pytest.approx(expected)


def test_bad_tables(folder: Path, tmp_path: Path) -> None:
    frame = read_table(folder / "assemble_sqed/methods/abcnet.parquet").iloc[:3]
    semantic = read_features(folder / "encode_semantics/clip_rs/features.parquet")
    path = tmp_path / "m.parquet"

    def refused(changed: pd.DataFrame, message: str, tokens: int = 1) -> None:
        write_table(path, changed)
        with pytest.raises(InputError, match=message):
            head_table(path, semantic, changed["patch_id"], tokens)

    vectors = [np.asarray(vector) for vector in frame["feature"]]
    broken: list[object] = [vectors[0], vectors[1] * np.nan, vectors[2]]
    short: list[object] = [vectors[0], vectors[1][:5], vectors[2]]
    refused(frame.assign(feature=pd.Series(broken)), f"1 of 3 rows, first {frame['patch_id'][1]}")
    refused(frame.assign(feature=pd.Series(short)), r"of one length in feature, found lengths \[5, 24\]")
    refused(frame.assign(oa=[0.1, 1.2, 0.3]), "oa in 0-1")
    refused(pd.concat([frame, frame[:1]]), "each patch once")
    refused(frame.assign(patch_id=["x", "y", "z"]), "3 missing, first x")
    refused(frame, "features of 5 tokens", tokens=5)
    write_table(path, frame)
    with pytest.raises(InputError, match="labels for some of 1 patches, found none"):
        head_table(path, semantic, pd.Series(["other"]))
