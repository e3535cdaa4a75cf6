"""Trains the model on prepared conversations: Muon for matrices, AdamW for the rest, one thread, seeded.

Forward and backward run in bfloat16 (on CPUs with AMX many times faster than float32), the weights that the optimizers
change stay in float32. Run one phase: `python train.py PHASE.json`; `phases/` holds the phases of pinion-tiny.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model import Llama, ModelConfig

LENGTHS, TOKENS_PER_BATCH = (48, 96, 192, 768), 3072
BATCHES_PER_STEP = 2
WARM_UP_STEPS = 50
IGNORED = -100


@dataclass(frozen=True)
class Phase:
    """One phase of training: data, where it starts and ends, and a learning rate that falls linearly."""

    data: str
    output: str
    steps: int
    seed: int
    matrix_rate: tuple[float, float]
    other_rate: tuple[float, float]
    start_from: str | None = None


class Batches:
    """Conversations grouped by length; every draw is one batch from one group, groups by their share of the tokens."""

    def __init__(self, path: str, seed: int):
        with np.load(path) as data:
            self.ids, self.learned, self.ends = data["ids"], data["learned"], data["ends"]
        self.starts = np.concatenate([[0], self.ends[:-1]])
        self.rng = np.random.default_rng(seed)
        lengths = self.ends - self.starts - 1
        edges = (0, *LENGTHS)
        self.groups = [np.flatnonzero((lengths > low) & (lengths <= high)) for low, high in zip(edges, edges[1:])]
        self.queues: list[list[int]] = [[] for _ in LENGTHS]
        shares = np.array([len(group) * length for group, length in zip(self.groups, LENGTHS)], float)
        self.shares = shares / shares.sum()

    def draw(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets [rows, length]; a target that is not to be learned is `IGNORED`."""
        which = int(self.rng.choice(len(LENGTHS), p=self.shares))
        length = LENGTHS[which]
        rows = TOKENS_PER_BATCH // length
        if len(self.queues[which]) < rows:
            self.queues[which] = self.rng.permutation(self.groups[which]).tolist()
        inputs, targets = np.zeros((rows, length), np.int64), np.full((rows, length), IGNORED, np.int64)
        for row in range(rows):
            item = self.queues[which].pop()
            piece = slice(self.starts[item], self.ends[item])
            ids, learned = self.ids[piece].astype(np.int64), self.learned[piece]
            inputs[row, : len(ids) - 1] = ids[:-1]
            targets[row, : len(ids) - 1] = np.where(learned[1:], ids[1:], IGNORED)
        return torch.from_numpy(inputs), torch.from_numpy(targets)


class Trainer:
    """The float32 weights with their optimizers, and the bfloat16 copy that runs."""

    def __init__(self, phase: Phase):
        torch.manual_seed(phase.seed)
        self.phase = phase
        self.master = Llama(ModelConfig())
        if phase.start_from:
            self.master.load_state_dict(torch.load(phase.start_from))
        self.running = Llama(ModelConfig()).to(torch.bfloat16)
        self.compiled = torch.compile(self.running, dynamic=False)
        matrices = [p for name, p in self.master.named_parameters() if p.dim() == 2 and "embed" not in name]
        others = [p for name, p in self.master.named_parameters() if p.dim() != 2 or "embed" in name]
        self.muon = torch.optim.Muon(matrices, lr=0.0, momentum=0.95, weight_decay=0.0, ns_steps=4)
        self.adam = torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.95), weight_decay=0.0)
        self._copy_to_running()

    def _copy_to_running(self) -> None:
        with torch.no_grad():
            for running, master in zip(self.running.parameters(), self.master.parameters()):
                running.copy_(master)

    def step(self, index: int, batches: Batches) -> float:
        """One optimizer step; the mean loss of its learned tokens."""
        losses = []
        for _ in range(BATCHES_PER_STEP):
            inputs, targets = batches.draw()
            chosen = targets != IGNORED
            logits = self.running.logits(self.compiled(inputs)[chosen]).float()
            loss = F.cross_entropy(logits, targets[chosen])
            (loss / BATCHES_PER_STEP).backward()
            losses.append(loss.item())
        for running, master in zip(self.running.parameters(), self.master.parameters()):
            master.grad, running.grad = running.grad.float(), None
        torch.nn.utils.clip_grad_norm_(self.master.parameters(), 1.0)
        progress, warm = index / self.phase.steps, min(1.0, (index + 1) / WARM_UP_STEPS)
        for optimizer, (first, last) in ((self.muon, self.phase.matrix_rate), (self.adam, self.phase.other_rate)):
            for group in optimizer.param_groups:
                group["lr"] = warm * (first + (last - first) * progress)
            optimizer.step()
        self._copy_to_running()
        return float(np.mean(losses))


def run(phase: Phase) -> None:
    """Train one phase, with a checkpoint and a line of figures every 100 steps."""
    trainer, batches, recent = Trainer(phase), Batches(phase.data, phase.seed), []
    wall, cpu = time.time(), time.process_time()
    for index in range(phase.steps):
        recent.append(trainer.step(index, batches))
        if (index + 1) % 100 == 0 or index + 1 == phase.steps:
            torch.save(trainer.master.state_dict(), Path(phase.output).with_suffix(".new"))
            Path(phase.output).with_suffix(".new").rename(phase.output)
            tokens = (index + 1) * BATCHES_PER_STEP * TOKENS_PER_BATCH
            print(f"step {index + 1} tokens {tokens} loss {np.mean(recent[-100:]):.4f} "
                  f"wall {time.time() - wall:.0f}s cpu {time.process_time() - cpu:.0f}s", flush=True)


def main() -> None:
    """Read the phase and train it."""
    torch.set_num_threads(1)
    run(Phase(**json.loads(Path(sys.argv[1]).read_text())))


if __name__ == "__main__":
    main()
