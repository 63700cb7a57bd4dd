"""What can be wrong with a data set, and how badly.

Readers and the preflight report `Problem`s instead of raising at the first one, so that a user sees
everything at once. The severities are those of the design:

fatal   stops with exit status 2, or leaves the item out with ``--skip-invalid``;
drop    the box or image is left out, and counted;
repair  mended in memory, and counted. Files are never rewritten;
warning nothing is left out or changed, but the figures would mislead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["fatal", "drop", "repair", "warning"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong: `kind` groups equal problems, `where` is the file and id."""

    severity: Severity
    kind: str  # short stable name, e.g. "inverted-box"
    where: str  # file, and the id or line within it
    what: str  # what was found
    remedy: str  # what to do about it
