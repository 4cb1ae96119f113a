"""The paper's scale on paper: FLOPs as torch counts them, and sums that one does in one's head."""

import dataclasses
import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.scale import (
    GPUS,
    Assumptions,
    Gpu,
    caption_seconds,
    hours,
    lost,
    main,
    reading_hours,
    training_hours,
)

NEVER = math.inf
UNITS = dataclasses.replace(
    Assumptions(),
    image_flops=1.5,
    text_flops=0.5,
    passes=4,
    parameters=0,
    batch=10,
    pairs_per_gpu=10,
    utilisation=0.5,
    read_ms=0,
    image_bytes=0,
)


def test_flops_and_parameters_of_vit_l_14_are_torchs() -> None:
    import open_clip

    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not know the fused kernel
    try:
        with torch.device("meta"):
            model = open_clip.CLIP(**open_clip.get_model_config("ViT-L-14")).eval()
            images, texts = torch.empty(1, 3, 224, 224), torch.empty(1, 77, dtype=torch.int64)
        for run, flops in (
            (lambda: model.encode_image(images), Assumptions.image_flops),
            (lambda: model.encode_text(texts), Assumptions.text_flops),
        ):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                run()
            assert counter.get_total_flops() == pytest.approx(flops, rel=0.005)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    parameters = sum(one.numel() for one in model.parameters())
    assert parameters == pytest.approx(Assumptions.parameters, rel=0.001)


def test_the_refiners_tower_and_language_model_are_torchs() -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        tower = CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
                image_size=504, patch_size=14,
            )
        )  # fmt: skip
        language = LlamaForCausalLM(LlamaConfig(vocab_size=32000))  # the defaults are LLaMA-7B's
        images = torch.empty(1, 3, 504, 504)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tower(images)
    assert counter.get_total_flops() == pytest.approx(Assumptions.tower_flops, rel=0.01)
    parameters = sum(one.numel() for one in language.parameters())
    assert parameters == pytest.approx(Assumptions.refiner_parameters, rel=0.001)


def test_a_training_that_computes_takes_its_flops() -> None:
    """Eight FLOPs a pair at one a second: 450 pairs an hour."""
    gpu = Gpu(flops=2, bandwidth=NEVER, memory=NEVER, link=NEVER, network=NEVER)
    assert training_hours(UNITS, gpu, 1, 450, 3) == pytest.approx(3)
    assert training_hours(UNITS, gpu, 5, 450, 3) == pytest.approx(0.6)


def test_a_training_that_waits_for_the_network_takes_the_gradients() -> None:
    """Two GPUs send their gradients once: 4 bytes of 9 weights, in 36 seconds; 20 pairs a step."""
    gpu = Gpu(flops=NEVER, bandwidth=NEVER, memory=NEVER, link=1, network=1)
    a = dataclasses.replace(UNITS, parameters=9)
    assert training_hours(a, gpu, 2, 2000, 1) == pytest.approx(1)


def test_a_caption_reads_the_weights_once_for_each_token_of_the_batch() -> None:
    fast = Gpu(flops=NEVER, bandwidth=2.0, memory=NEVER, link=1, network=1)
    a = dataclasses.replace(
        Assumptions(), refiner_parameters=8, prompt_tokens=0, new_tokens=1e-9, bandwidth_utilisation=1
    )
    assert caption_seconds(a, fast) * 1e9 == pytest.approx(16 / 2 / a.refiner_batch, rel=1e-3)


def test_reading_is_bound_by_cores_or_by_the_disk() -> None:
    """3600 pairs at two seconds of a core, and one second of the disk, each."""
    a = dataclasses.replace(Assumptions(), cores=1, disk=10)
    assert reading_hours(a, 1, 3600, ms=2000, size=10) == pytest.approx(2)
    assert reading_hours(a, 8, 3600, ms=2000, size=10) == pytest.approx(1)


@pytest.mark.parametrize("gpu", GPUS.values(), ids=list(GPUS))
def test_more_gpus_never_take_longer_nor_less_than_their_share(gpu: Gpu) -> None:
    """But for trainings: their batch grows with the GPUs, and a step of the optimiser serves more pairs."""
    one, many = (hours(Assumptions(), gpu, gpus) for gpus in (1, 64))
    for stage in one:
        assert many[stage] < one[stage]
        assert one[stage] <= 64 * many[stage] * (1 + 1e-9) or stage.startswith(("train", "pretrain"))


def test_the_table_names_every_stage_and_takes_other_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--gpus", "1", "--epochs", "10"]) == 0
    half = capsys.readouterr().out
    assert main(["--gpus", "1"]) == 0
    whole = capsys.readouterr().out
    rows = [
        {
            line.split("|")[1].strip(): line.split("|")[2]
            for line in printed.splitlines()
            if line.count("|") == 4
        }
        for printed in (half, whole)
    ]
    assert set(lost(Assumptions(), GPUS["h100"])) <= set(rows[0])
    assert float(rows[1]["train_clip_sem"]) == pytest.approx(2 * float(rows[0]["train_clip_sem"]), rel=0.01)
    assert rows[1]["score_similarity"] == rows[0]["score_similarity"]
