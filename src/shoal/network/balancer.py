"""Brings a KernelState into the kernel: whole rulesets by `nft`, changes by hand-made batches, stale UDP flows cut.

Blocking: runs in the network's worker thread only.
"""

from __future__ import annotations

import structlog

from shoal.network import conntrack, namespace, nfnetlink, nft, nft_process
from shoal.network.plumbing import Plumbing
from shoal.network.state import FlowCuts, KernelState, Operation, RemoveBalanced, diff, flow_cuts

_log = structlog.get_logger(__name__)


class Balancer:
    """What the kernel balances and forwards now, and the way to change it."""

    def __init__(self, plumbing: Plumbing) -> None:
        self._plumbing = plumbing
        self._actual = KernelState()
        self._is_known = False

    @property
    def is_behind(self) -> bool:
        """Whether the kernel was not led to what it should do: the next change loads all of it."""
        return not self._is_known

    def load(self, state: KernelState) -> None:
        """Replace both rulesets, each in one transaction; flows under way are not touched.

        Raises:
            Unavailable: nft refuses (kept short: its first line).
        """
        plumbing = self._plumbing
        with namespace.inside(plumbing.sandbox, plumbing.home):
            self._load(nft.render_sandbox(plumbing.names, plumbing.ranges, state))
        self._load(nft.render_host(plumbing.names, plumbing.ranges, state))
        self._actual = state
        self._is_known = True

    def change(self, state: KernelState) -> int:
        """Lead the kernel to `state`; return the number of operations.

        The host stops sending what is withdrawn before the sandbox forgets it, and sends what is new after the sandbox
        knows it. A batch that the kernel refuses is answered by loading everything.
        """
        operations = diff(self._actual, state)
        if not operations and self._is_known:
            return 0
        cuts = flow_cuts(self._actual, operations)
        try:
            if not self._is_known:
                raise OSError("an earlier load failed")
            self._is_known = False
            self._commit(operations)
            self._is_known = True
        except OSError as error:
            _log.warning("an update of rules was refused: loading them whole", reason=str(error))
            self.load(state)
        self._actual = state
        if not cuts.is_empty:
            self._cut(cuts)
        return len(operations)

    def _commit(self, operations: tuple[Operation, ...]) -> None:
        plumbing, table = self._plumbing, self._plumbing.names.table
        before = {port.key: port for port in self._actual.balanced}
        withdrawn = tuple(operation for operation in operations if isinstance(operation, RemoveBalanced))
        others = tuple(operation for operation in operations if not isinstance(operation, RemoveBalanced))
        nfnetlink.commit(plumbing.host_rules, nfnetlink.host_batch(table, withdrawn))
        nfnetlink.commit(plumbing.sandbox_rules, nfnetlink.sandbox_batch(table, operations, before))
        nfnetlink.commit(plumbing.host_rules, nfnetlink.host_batch(table, others))

    def _cut(self, cuts: FlowCuts) -> None:
        """Cut stale UDP flows; failing is no reason to fail an update: they age out in three minutes at most."""
        sandbox_end = self._plumbing.ranges.sandbox_end

        def is_stale_on_host(flow: conntrack.Flow) -> bool:
            to_port = flow.destination_port in cuts.host_ports
            unanswered = not flow.is_answered or flow.answering_address == sandbox_end
            return (to_port and unanswered) or flow.answering_address in cuts.host_addresses

        def is_stale_in_sandbox(flow: conntrack.Flow) -> bool:
            return (flow.destination_port, flow.answering_address) in cuts.backends

        count = 0
        try:
            if cuts.host_ports or cuts.host_addresses:
                count += conntrack.cut_udp(self._plumbing.host_rules, is_stale_on_host)
            if cuts.backends:
                count += conntrack.cut_udp(self._plumbing.sandbox_rules, is_stale_in_sandbox)
        except OSError as error:
            _log.warning("stale UDP flows could not be cut: they age out", reason=str(error))
        if count:
            _log.info("cut stale UDP flows", count=count)

    def remove(self) -> None:
        """Take the host's table away (the sandbox's goes with its namespace)."""
        self._load(nft.take_away("ip", self._plumbing.names.table))

    def _load(self, ruleset: str) -> None:
        nft_process.load(self._plumbing.settings.nft_command, ruleset)
