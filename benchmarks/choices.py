"""What each choice that the paper leaves open does to RS-SQA, on the data of the present profile.

One choice at a time departs from `model` in params.yaml; all heads of all seeds are trained anew, with the
stage's own code. Differences are paired: both models see the same resampled source units. `make repro` has to
be run before. docs/choices.md holds the table of the embedded default.
"""

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from pipeline.clip.model import load as load_clip
from pipeline.clip.semantics import encode_patches
from pipeline.clip.settings import EncodeSemantics
from pipeline.commands.parameters import Parameters, Profile, load
from pipeline.evaluation import comparison, heldout, quality
from pipeline.runtime import devices
from pipeline.runtime.checkpoints import Checkpoint, open_checkpoint
from pipeline.runtime.files import read_table
from pipeline.segmenters.registry import METHODS
from pipeline.sqa.prediction import predict
from pipeline.sqa.settings import ModelSettings
from pipeline.sqa.tables import Features, head_table, read_features
from pipeline.sqa.training import train

CHOICES: dict[str, dict[str, Any]] = {
    "KL term: left out": {"alpha": 0.0},
    "KL term: temperature 0.03": {"temperature": 0.03},
    "KL term: temperature 0.3": {"temperature": 0.3},
    "KL term: temperature 1": {"temperature": 1.0},
    "KL term: scores as shares of their sum": {"distribution": "share"},
    "A_Seg: one linear layer": {"segmentation_layers": 1},
    "V_Seg: LayerNorm": {"segmentation_norm": "layer"},
    "V_Seg: not scaled": {"segmentation_norm": "none"},
    "A_Sem: no ViT block": {"blocks": 0},
    "A_Sem: one ViT block": {"blocks": 1},
    "V_Sem: the patch and its quarters (5 tokens)": {"grid": 2},
}
DEFAULT = comparison.OURS
SHOWN = ("SROCC", "SROCC_within", "RMSE", "P@1", "regret")


class World(NamedTuple):
    """RS-SQED and the features of RS-SQA's encoder, by `encode_semantics.grid`."""

    folder: Path
    patches: pd.DataFrame
    test: heldout.HeldOut
    semantic: dict[int, Features]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choices", description=__doc__)
    parser.add_argument("--choices", nargs="+", default=list(CHOICES), choices=list(CHOICES), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: those of params.yaml")
    arguments = parser.parse_args()
    parameters, profile = load(Path())
    torch.set_num_threads(profile.threads)
    seeds = arguments.seeds or parameters.seeds
    world = read_world(parameters, profile)
    chosen = {name: CHOICES[name] for name in arguments.choices}
    models = {}
    for name, changes in {DEFAULT: {}, **chosen}.items():
        model = {key: value for key, value in changes.items() if key != "grid"}
        settings = ModelSettings(**(parameters.model.model_dump() | model))
        grid = changes.get("grid", profile.encode_semantics.grid)
        views = profile.encode_semantics.model_copy(update={"grid": grid})
        predicted = train_and_predict(world, parameters, profile, settings, views, seeds)
        models[name] = heldout.Model(heldout.OWN, predicted)
    print(markdown(comparison.compare(*scores(world.test, models)), len(seeds), world.test))


def read_world(parameters: Parameters, profile: Profile) -> World:
    """What the stages wrote for the present profile."""
    data = Path("data", parameters.profile)
    folder = data / "assemble_sqed"
    index = read_table(folder / "index.parquet")
    facts = heldout.read_facts(folder / "datasets.json", parameters.datasets)
    test = heldout.read_held_out(
        index,
        {name: METHODS[name].title for name in parameters.methods},
        {name: one["subset"] for name, one in facts.items()},
        resamples=profile.evaluate.resamples,
        seed=profile.evaluate.bootstrap_seed,
    )
    encoder = parameters.variants[comparison.MODEL].encoder
    stored = read_features(data / "encode_semantics" / encoder / "features.parquet")
    return World(folder, index, test, {profile.encode_semantics.grid: stored})


def features(world: World, parameters: Parameters, profile: Profile, views: EncodeSemantics) -> Features:
    """The encoder's features of these views, encoded now where no stage has."""
    if views.grid not in world.semantic:
        weights = parameters.encoders[parameters.variants[comparison.MODEL].encoder].weights
        clip = load_clip(Path("data", parameters.profile, *weights.split("/")))
        clip.model.to(devices.choose(profile.runtime.device)).eval()
        paths = [world.folder / path for path in world.patches["path"]]
        values = encode_patches(clip, paths, views, workers=profile.runtime.workers).numpy()
        world.semantic[views.grid] = Features(Path("views"), pd.Index(world.patches["patch_id"]), values)
    return world.semantic[views.grid]


def train_and_predict(
    world: World,
    parameters: Parameters,
    profile: Profile,
    settings: ModelSettings,
    views: EncodeSemantics,
    seeds: list[int],
) -> np.ndarray:
    """[seeds, N, methods] of the test patches."""
    device = devices.choose(profile.runtime.device)
    semantic = features(world, parameters, profile, views)
    sides = {
        side: world.patches.loc[world.patches["split"] == side, "patch_id"] for side in ("train", "test")
    }
    found = np.full((len(seeds), *world.test.true.shape), np.nan)
    rows = pd.Index(world.test.table["patch_id"])
    for column, method in enumerate(parameters.methods):
        path = world.folder / "methods" / f"{method}.parquet"
        training, testing = (
            head_table(path, semantic, sides[side], views.tokens, settings.segmentation_inputs)
            for side in ("train", "test")
        )
        for place, seed in enumerate(seeds):
            with scratch() as checkpoint:
                head = train(training, settings, profile.train_sqa, seed, device, checkpoint)
            where = rows.get_indexer(pd.Index(testing.patch_ids))
            found[place, where, column] = predict(head, testing, device)
    return found


@contextlib.contextmanager
def scratch() -> Iterator[Checkpoint]:
    """A checkpoint that nobody takes up."""
    with (
        tempfile.TemporaryDirectory() as folder,
        open_checkpoint(Path(folder), say=lambda _: None) as checkpoint,
    ):
        yield checkpoint


def scores(test: heldout.HeldOut, models: dict[str, heldout.Model]) -> tuple[quality.Scores, quality.Scores]:
    """Tables 3, on the mix alone, and 4 of these models."""
    return quality.quality(test, models, narrow=list(models)), quality.recommendations(test, models)


def markdown(compared: pd.DataFrame, seeds: int, test: heldout.HeldOut) -> str:
    """The default's values, then of each choice what it changes against them, with paired 95 % intervals."""
    cells = compared.set_index(["model", "metric"])
    values = (f"**{cells['value'][DEFAULT, name]:.3f}**" for name in SHOWN)
    lines = [
        f"{test.true.shape[1]} methods, {len(test.table)} test patches, {seeds} seeds, "
        f"{len(test.resamples)} resamples of the source units",
        "",
        f"| choice | {' | '.join(SHOWN)} |",
        f"| --- |{' ---: |' * len(SHOWN)}",
        f"| **the default** | {' | '.join(values)} |",
    ]
    for model in dict.fromkeys(compared["model"]):
        if model not in (DEFAULT, quality.RANDOM):
            row = (difference(cells.loc[(model, name)]) for name in SHOWN)
            lines.append(f"| {model} | {' | '.join(row)} |")
    return "\n".join(lines)


def difference(cell: pd.Series) -> str:
    """The choice minus the default; its interval; a star where Holm's correction leaves p below 0.05."""
    if pd.isna(cell["gain"]):
        return "-"
    text = f"{-cell['gain']:+.3f}"
    if not pd.isna(cell["gain_low"]):
        text += f" ({-cell['gain_high']:+.3f} to {-cell['gain_low']:+.3f})"
    return text + ("*" if not pd.isna(cell["p_holm"]) and cell["p_holm"] < comparison.LEVEL else "")


if __name__ == "__main__":
    main()
