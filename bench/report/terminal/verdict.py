"""The verdict in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from bench.report.citations import CitedValue, Command, Sentence


def print_verdict(verdict: Sequence[Sentence], console: Console) -> None:
    """Print the sentences with their values in bold, and a command on a line of its own, never broken.

    tables/verdict.md lists the source of each value.
    """
    console.print(Text("\nVerdict", style="bold"))
    for sentence in verdict:
        text = Text()
        for part in sentence.parts:
            if not isinstance(part, Command):
                text.append(
                    part if isinstance(part, str) else part.text, "bold" if isinstance(part, CitedValue) else ""
                )
        console.print(Padding(text, (0, 0, 0, 2)))
        for part in sentence.parts:
            if isinstance(part, Command):
                console.print(Text(f"    {part.text}", "cyan"), soft_wrap=True)
    console.print()
