"""CLIP_Sem and purification on real pairs: how true sentences stand out, and what a CLIP gains.

    python -m benchmarks.real_captions SAMPLES [--seeds 0 1 2] [--sem-steps 600] [--steps 300] ...

SAMPLES/aid holds scenes of AID and pairs.jsonl: {"image", "class", "captions"}, with RSICD's five sentences
of the scene. Some scenes are the clean source. The rough one holds, in turns, a scene with its sentence and
one with a sentence of another class. CLIPs of a random start are trained on the rough pairs as they are and
as purified by score, split and miniature refiner. A seed draws the scenes and starts the models.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from benchmarks.clip_sides import profile
from pipeline.captions.collect import collect
from pipeline.captions.settings import CollectCaptions
from pipeline.captions.shards import Pairs
from pipeline.clip.embed import embed_pairs, embed_texts
from pipeline.clip.model import Clip, build
from pipeline.clip.settings import ClipModel, ClipTraining
from pipeline.clip.similarity import score_shards, scores_of, split_by_score
from pipeline.clip.train import summary, train
from pipeline.refiner import miniature
from pipeline.refiner.captions import write_captions
from pipeline.refiner.generate import Refiner, Scored, refine_shards
from pipeline.runtime.checkpoints import open_checkpoint

# A convolutional tower learns from a thousand images what the embedded profile's ViT does not.
CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64},
    "text_cfg": {"context_length": 40, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 2},
}
STRONG = {"rotate": True, "scale": (0.4, 1.0), "color_jitter": 0.3, "use_timm": True}
CPU = torch.device("cpu")
SIDE = 72  # pixels of the images, which are quick to decode


@dataclass(frozen=True)
class Sizes:
    """Scenes of each use, and steps of each training."""

    clean: int
    held_out: int
    rough: int
    sem_steps: int = 300  # CLIP_Sem
    refiner_steps: int = 300
    steps: int = 300  # on rough pairs; 0: none
    strong: bool = False  # augmentation: for trainings of many epochs


def write_sources(
    samples: Path,
    root: Path,
    sizes: Sizes,
    *,
    seed: int = 0,
    kinds: Sequence[str] = ("true", "swapped", "class"),
    side: int | None = None,
) -> dict[str, str]:
    """Write rsicd/ (clean, held-out) and skyscript/ (rough) as distributed; the kind of each rough image.

    kinds: of rough captions, in turns; side: pixels of the images, None: as they are.
    """

    def place(scene: dict[str, Any], path: Path) -> None:
        if side is None:
            shutil.copy(samples / "aid" / scene["image"], path)
        else:
            image = Image.open(samples / "aid" / scene["image"]).convert("RGB")
            image.resize((side, side), Image.Resampling.BICUBIC).save(path, quality=95)

    scenes = [json.loads(line) for line in (samples / "aid/pairs.jsonl").read_text().splitlines()]
    order = np.random.default_rng(seed).permutation(len(scenes))
    chosen = [scenes[number] for number in order]
    clean, rough = np.split(np.array(chosen, object), [sizes.clean + sizes.held_out])
    (root / "rsicd/RSICD_images").mkdir(parents=True)
    images = []
    for number, scene in enumerate(clean):
        name = Path(scene["image"]).name
        place(scene, root / "rsicd/RSICD_images" / name)
        split = "train" if number < sizes.clean else "val"
        sentences = [{"raw": sentence} for sentence in scene["captions"]]
        images.append({"filename": name, "split": split, "sentences": sentences})
    (root / "rsicd/dataset_rsicd.json").write_text(json.dumps({"images": images, "dataset": "rsicd"}))
    rough = rough[: sizes.rough]
    (root / "skyscript/images2").mkdir(parents=True)
    rows, kind_of = [], {}
    for number, scene in enumerate(rough):
        kind = kinds[number % len(kinds)]
        other = next(one for one in [*rough[number + 1 :], *rough] if one["class"] != scene["class"])
        label = f"a satellite image of {scene['class']}"
        title = {"true": scene["captions"][0], "swapped": other["captions"][0], "class": label}[kind]
        name = f"images2/{Path(scene['image']).name}"
        place(scene, root / "skyscript" / name)
        rows.append({"filepath": name, "title": title, "title_multi_objects": title})
        kind_of[name] = kind
    pd.DataFrame(rows).to_csv(root / "skyscript/SkyScript_train_unfiltered_5M.csv", index=False)
    return kind_of


SOURCES: list[dict[str, Any]] = [
    {"name": "rsicd", "kind": "karpathy", "path": "rsicd/dataset_rsicd.json",
     "images": "rsicd/RSICD_images", "quality": "clean", "licence": "academic use"},
    {"name": "skyscript", "kind": "csv", "path": "skyscript/SkyScript_train_unfiltered_5M.csv",
     "images": "skyscript", "quality": "rough", "licence": "academic use"},
]  # fmt: skip


class Study:
    """Trainings on one draw of the scenes, in a folder of its own; `seed` also starts all models."""

    def __init__(self, samples: Path, folder: Path, sizes: Sizes, seed: int) -> None:
        self.folder, self.sizes, self.seed = folder, sizes, seed
        self.profile = profile()
        self.kinds = write_sources(
            samples, folder / "root", sizes, seed=seed, kinds=("true", "swapped"), side=SIDE
        )
        settings = {**self.profile.collect_captions.model_dump(), "sources": SOURCES}
        for name in ("store", "collected"):
            (folder / name).mkdir()
        collect(
            folder / "root", CollectCaptions.model_validate(settings), {}, folder / "store",
            folder / "collected", say=lambda _: None,
        )  # fmt: skip
        self.held_out = Pairs(folder / "collected", "clean", "val")

    def pairs(self, kind: str) -> Pairs:
        """The clean pairs of training, or the rough ones."""
        return Pairs(self.folder / "collected", kind, "train")

    def train(self, name: str, pairs: Sequence[Pairs], steps: int) -> tuple[Clip, dict[str, float | None]]:
        """A CLIP trained from a random start, and its recall on the held-out scenes."""
        settings = ClipTraining.model_validate(
            self.profile.train_clip_sem.model_dump()
            | {"steps": steps, "warm_up": steps // 10, "seed": self.seed}
            | {"evaluate_every": steps, "evaluate_images": self.sizes.held_out}
            | ({"augmentation": STRONG} if self.sizes.strong else {})
        )
        clip = build(ClipModel(model=CONFIG, pretrained=None, force_quick_gelu=False, seed=self.seed))
        with open_checkpoint(self.folder / name, seconds=1e9) as checkpoint:
            train(clip, pairs, self.held_out, settings, checkpoint, device=CPU, workers=0, say=lambda _: None)
            return clip, summary(checkpoint.curves())

    def separation(self, clip: Clip) -> dict[str, float]:
        """AUC of Eq. 1 on the held-out scenes: each one's first sentence against all the others' first ones,
        and against those of the scenes of other classes alone."""
        how: dict[str, Any] = {"batch": 100, "precision": "fp32"}
        images = embed_pairs(clip, self.held_out, range(len(self.held_out)), workers=0, **how)
        texts = embed_texts(clip, self.held_out.first_captions(), **how)
        scores = (images @ texts.T).numpy()
        classes = np.array([item.rpartition("_")[0] for item in self.held_out.items()])
        return auc(scores, classes)

    def purify(self, clip: Clip) -> tuple[Pairs, pd.DataFrame]:
        """The rough pairs with kept and refined captions, and the table of the refinement."""
        rough, clean, base = self.pairs("rough"), self.pairs("clean"), self.profile
        scored, written = self.folder / "scores", self.folder / "refined"
        scored.mkdir()
        written.mkdir()
        score_shards(clip, rough, base.score_similarity, scored, workers=0)
        scores = scores_of(scored, rough)
        high, _ = split_by_score(scores, base.score_similarity)

        small = base.prepare_refiner.miniature
        assert small is not None
        settings = small.model_copy(update={"steps": self.sizes.refiner_steps, "seed": self.seed})
        model, processor = miniature.build(settings, clean)
        with open_checkpoint(self.folder / "refiner", seconds=1e9) as checkpoint:
            miniature.train(model, processor, clean, settings, checkpoint, device=CPU, workers=0)
        processor.tokenizer.padding_side = "left"
        refiner, how = Refiner(model, processor), base.refine_captions
        refine_shards(refiner, clip, rough, Scored(scores, ~high), how, written, workers=0)
        write_captions(self.folder, written, rough)
        table = pd.read_parquet(self.folder / "captions.parquet")
        table["kind"] = [self.kinds[item] for item in rough.items()]
        rough.replace_captions(table["key"].tolist(), table["new"].tolist())
        return rough, table


def auc(scores: np.ndarray, classes: np.ndarray) -> dict[str, float]:
    """How often the diagonal of (N, N) `scores` lies above what is beside it: any, or of other classes."""
    from scipy.stats import mannwhitneyu

    right = np.diagonal(scores)
    wrong = {
        "any": ~np.eye(len(scores), dtype=bool),
        "other_classes": classes[:, None] != classes,
    }
    return {
        name: float(mannwhitneyu(right, scores[mask]).statistic / len(right) / mask.sum())
        for name, mask in wrong.items()
    }


def study(samples: Path, folder: Path, sizes: Sizes, seed: int) -> dict[str, Any]:
    """AUC of CLIP_Sem, fates of the rough captions, recall and AUC of CLIPs on raw and on purified pairs."""
    one = Study(samples, folder, sizes, seed)
    sem, _ = one.train("sem", [one.pairs("clean")], sizes.sem_steps)
    found: dict[str, Any] = {"auc": one.separation(sem)}
    if not sizes.steps:
        return found
    purified, table = one.purify(sem)
    fates = table["status"].where(table["status"].isin(["kept", "refined"]), "not refined")
    found["fates"] = pd.crosstab(table["kind"], fates, normalize="index").round(3).to_dict("index")
    for name, rough in (("raw", one.pairs("rough")), ("purified", purified)):
        clip, recall = one.train(name, [rough], sizes.steps)
        found[name] = {**recall, "auc": one.separation(clip)}
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.real_captions", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("samples", type=Path, help="folder with aid/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--clean", type=int, default=1000, help="scenes (default 1000)")
    parser.add_argument("--held-out", type=int, default=500, help="scenes (default 500)")
    parser.add_argument("--rough", type=int, default=1200, help="scenes (default 1200)")
    parser.add_argument("--sem-steps", type=int, default=300, help="of CLIP_Sem (default 300)")
    parser.add_argument("--refiner-steps", type=int, default=300, help="of the refiner (default 300)")
    parser.add_argument("--steps", type=int, default=300, help="on rough pairs (default 300; 0: AUC alone)")
    parser.add_argument("--strong", action="store_true", help="augmentation, for trainings of many epochs")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    names = ("clean", "held_out", "rough", "sem_steps", "refiner_steps", "steps", "strong")
    sizes = Sizes(**{name: getattr(options, name) for name in names})
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            found = study(options.samples, Path(folder), sizes, seed)
        print(json.dumps({"seed": seed, **found}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
