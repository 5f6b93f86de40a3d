"""One of several workers that train over gloo, as a process that can be killed.

usage: python worker.py RANK NUM_WORKERS MEETING RECIPE DATA OUT CHECKPOINTS
"""

import os
import sys
import time
from pathlib import Path

import torch

from onepiece.parsing import read_recipe
from onepiece.training.fit import fit
from onepiece.training.loop import Progress
from onepiece.training.recipe import TrainingRecipe
from onepiece.training.step import Share


def main() -> None:
    """Trains; prints each step, slowly enough for a kill to hit the step that was meant."""
    rank, num_workers = int(sys.argv[1]), int(sys.argv[2])
    meeting, recipe, data, out, checkpoints = (Path(text) for text in sys.argv[3:])
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=num_workers
    )

    def tell(progress: Progress) -> None:
        sys.stdout.write(f"{progress.step}\n")
        sys.stdout.flush()
        time.sleep(0.01)

    fit(
        data,
        read_recipe(recipe, TrainingRecipe),
        out,
        checkpoints=checkpoints,
        on_progress=tell,
        share=Share(rank, num_workers),
    )
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
