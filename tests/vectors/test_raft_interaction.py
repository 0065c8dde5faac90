"""Whole conversations between members against etcd/raft's own scripts: every Ready, message, state and log of them.

Compared is all a script prints but the lines of etcd's logger, and its error text for a message that it does not step.
"""

from __future__ import annotations

import re

import pytest

from tests.vectors.datadriven import read_cases, vectors_folder
from tests.vectors.raft_interaction import Interaction

# Every script there is, and why it is left out if it is.
FILES: dict[str, str | None] = {
    "campaign": None,
    "campaign_learner_must_vote": None,
    "checkquorum": None,
    "confchange_v1_add_single": None,
    "confchange_v1_remove_leader": None,
    "confchange_v1_remove_leader_stepdown": None,
    "confchange_v2_add_double_auto": None,
    "confchange_v2_add_double_implicit": None,
    "confchange_v2_add_single_auto": None,
    "confchange_v2_add_single_explicit": None,
    "confchange_v2_replace_leader": None,
    "forget_leader": None,
    "forget_leader_prevote_checkquorum": None,
    "prevote": None,
    "probe_and_replicate": None,
    "single_node": None,
    "slow_follower_after_compaction": None,
    "snapshot_succeed_via_app_resp": None,
}
# A message of a member that is not known (any more) is ignored by our members, too, but without a word.
COMMENTARY = re.compile(r"\s*((INFO|DEBUG|WARN|ERROR)\b|raft: cannot step as peer not found)")


def without_commentary(text: str) -> list[str]:
    lines = [line for line in text.split("\n") if not COMMENTARY.match(line)]
    return lines or ["ok"]


def test_every_script_is_listed() -> None:
    assert {path.stem for path in vectors_folder("raft/interaction").glob("*.txt")} == FILES.keys()


@pytest.mark.parametrize("name", FILES)
def test_interaction(name: str) -> None:
    reason = FILES[name]
    if reason is not None:
        pytest.skip(reason)
    interaction = Interaction()
    cases = list(read_cases(vectors_folder("raft/interaction") / f"{name}.txt"))
    assert cases
    for case in cases:
        got = without_commentary(interaction.run(case))
        assert got == without_commentary(case.expected), f"{case.file}:{case.line} {case.command}"
