"""Loading rulesets with the `nft` program. Blocking; acts on the network namespace of the calling thread."""

from __future__ import annotations

import subprocess

from shoal.errors import Unavailable

NFT_TIMEOUT_SECONDS = 60.0


def load(command: str, ruleset: str) -> None:
    """Load a ruleset in one transaction.

    Raises:
        Unavailable: nft refuses (kept short: its first line), or cannot be run.
    """
    try:
        done = subprocess.run(
            [command, "-f", "-"],
            input=ruleset,
            text=True,
            capture_output=True,
            timeout=NFT_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"nft could not be run: {error}") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise Unavailable(f"nft refuses the node's rules: {lines[0]}")
