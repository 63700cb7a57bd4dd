"""Continue the trainings of an earlier run with more steps: ``--continue RUN --steps N``.

The learning rate is constant between warm-up and decay, so a longer training begins exactly as a shorter one with the
same warm-up. The shorter one keeps its state at the end of that part, and the longer one starts there. Its result is
that of a training from the start, bit for bit. (Decays branched off one training at a constant rate: Haegele et al.
2024, "Scaling laws and compute-optimal training beyond fixed training durations".)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.run.plan import planned_numerics
from bench.spec import Cell, Numerics, Specification
from bench.storage.atomic import write_json
from bench.storage.records import as_read, read_plan
from bench.storage.run_folder import BEFORE_DECAY, LENGTHS, cell_folder
from bench.training.schedule import longer, steps_before_decay


@dataclass(frozen=True, kw_only=True)
class EarlierRun:
    """A run whose trainings continue. numerics: those of its plan."""

    folder: Path
    plan: Mapping[str, Any]
    numerics: Numerics

    @classmethod
    def read(cls, folder: Path) -> EarlierRun:
        """Raises UserError if the folder is not a run of this version."""
        plan, numerics = read_plan(folder), planned_numerics(folder)
        if plan is None or numerics is None:
            raise UserError(f"--continue {folder} is not the folder of a run; give results/NAME")
        return cls(folder=folder, plan=plan, numerics=numerics)

    @property
    def steps(self) -> int:
        """The steps of its baseline."""
        return int(self.plan["base"]["training"]["steps"])

    def baseline(self, requested: Specification, split: str) -> Specification:
        """The requested baseline with the warm-up of this run. Raises UserError if it does not continue this run.

        split: fingerprint of the requested data's split.
        """
        steps, training = requested.training.steps, requested.training
        if split != self.plan.get("split"):
            raise UserError(f"--continue {self.folder}: that run has other data, or another split of them")
        if steps <= self.steps:
            raise UserError(f"--continue {self.folder}: that run has {self.steps} steps; ask for more: --steps N")
        begun = replace(training, steps=self.steps, warmup_share=self.plan["base"]["training"]["warmup_share"])
        if as_read(asdict(replace(requested, training=begun))) != self.plan["base"]:
            raise UserError(
                f"--continue {self.folder}: that run has another baseline than this one; request the same backbone, "
                "weights, priors, profile, --batch and --lr"
            )
        return replace(requested, training=longer(begun, steps))

    def cells(self, cells: Sequence[Cell]) -> dict[str, Path]:
        """The folders of this run's cells that the new `cells` continue, by the new cell's id."""
        own = {(cell["variant"], cell["control"], cell["seed"]): str(cell["id"]) for cell in self.plan["cells"]}
        folders = {
            cell.id: cell_folder(self.folder, own[key])
            for cell in cells
            if (key := (cell.variant, cell.control, cell.seed)) in own
        }
        return {cell_id: folder for cell_id, folder in folders.items() if (folder / BEFORE_DECAY).is_file()}

    def steps_done(self, cells: Sequence[Cell]) -> dict[str, int]:
        """The steps that the new `cells` need not train, by the cell's id.

        A cell whose schedule depends on the number of steps may not profit from them; that is known when it starts.
        """
        kept = steps_before_decay(
            replace(
                cells[0].base.training, steps=self.steps, warmup_share=self.plan["base"]["training"]["warmup_share"]
            )
        )
        return dict.fromkeys(self.cells(cells), kept)

    def write_lengths(self, out: Path) -> None:
        """Store the figures of this run, and of those that it continues, in the folder of the longer one.

        Raises UserError if a file of this run is damaged.
        """
        from bench.analysis.lengths import lengths_so_far  # noqa: PLC0415  # pandas and scipy take a second

        write_json(out / LENGTHS, lengths_so_far(self.folder))
