"""Open the data of a request, with progress and a summary in the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from bench.data.dataset import Dataset, open_dataset
from bench.data.preflight import summary
from bench.device.hardware import available_cores
from bench.options import DataOptions
from bench.report.terminal.progress import images_checked
from bench.storage.run_folder import SPLIT


def open_data(options: DataOptions, folder: Path, console: Console) -> Dataset:
    """The data, checked and split; a split.json in `folder` is kept. Raises UserError for fatal problems."""
    with images_checked(console) as progress:
        data = open_dataset(
            options.source,
            cache=options.cache,
            workers=available_cores(),
            progress=progress,
            skip_invalid=options.skip_invalid,
            val_fraction=options.val_fraction,
            eval_list=options.eval_list,
            frozen=folder / SPLIT,
        )
    for line in summary(data.report):
        console.print(line, markup=False, highlight=False)
    return data
