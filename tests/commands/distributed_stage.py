"""A stage of a few steps in several processes; TROUBLE says what happens to which rank at the third."""

import os
import signal
import time

import torch
import torch.distributed as dist

from pipeline.commands.stage import Stage, run
from pipeline.runtime.distributed import position
from pipeline.runtime.errors import InputError


def main(stage: Stage) -> None:
    with stage.checkpoint({}, []) as checkpoint:
        total = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(total.weight)
        step = checkpoint.resume(total=total)
        steps = int(os.environ.get("STEPS", "6"))
        while step < steps:
            value = torch.tensor([[float(position()[0] + step)]])
            dist.all_reduce(value)
            total.weight.data += value
            step += 1
            if step == 3:
                trouble()
            if step > 3:
                time.sleep(float(os.environ.get("PAUSE", "0")))
            checkpoint.step(step)
            if step == 2 and stage.writes:
                checkpoint.save(step)
        checkpoint.finish(step)
    if not stage.writes:
        return
    with stage.output_folder() as out:
        (out / "total.txt").write_text(str(total.weight.item()))


def trouble() -> None:
    """What TROUBLE names, as rank:what, to this process."""
    rank, _, what = os.environ.get("TROUBLE", "-").partition(":")
    if rank != str(position()[0]):
        return
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif what == "input":
        raise InputError("image.png: expected RGB, found grey; convert it")
    elif what == "defect":
        raise KeyError("what")


if __name__ == "__main__":
    run(main, distributed=True)
