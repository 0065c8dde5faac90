"""One tree of errors, each with its Docker status code.

    ShoalError            500
    ├── InvalidArgument   400   bad input: names the field and the remedy
    ├── Unauthenticated   401
    │   └── WrongUnlockKey 401
    ├── Forbidden         403
    ├── NotFound          404
    ├── Conflict          409   the state of the thing does not allow it
    │   └── NameConflict  409
    ├── OutOfSequence     500   Docker's own code for a stale version (trap 1 of the reference)
    ├── NotBuilt          501   outside the product, or not built yet: says which
    └── Unavailable       503   no manager, no leader, no quorum
        ├── NotLeader     503
        └── Locked        503   the manager's keys are wrapped by an unlock key

Some texts carry a gRPC prefix in Docker (`rpc error: code = X desc = `); clients match the rest, so ours have none.
"""

from __future__ import annotations

from typing import ClassVar


class ShoalError(Exception):
    """Anything Shoal refuses or fails at; `status` is the HTTP status code it is answered with."""

    status: ClassVar[int] = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidArgument(ShoalError):
    """Bad input."""

    status = 400


class Unauthenticated(ShoalError):
    """A wrong key or no credentials."""

    status = 401


class Forbidden(ShoalError):
    """Understood, but not allowed."""

    status = 403


class NotFound(ShoalError):
    """No such object."""

    status = 404


class Conflict(ShoalError):
    """The state of the object does not allow it."""

    status = 409


class NameConflict(Conflict):
    """Another object has this name."""


class OutOfSequence(ShoalError):
    """The object has changed since the version that was sent."""

    status = 500

    def __init__(self, message: str = "update out of sequence") -> None:
        super().__init__(message)


class NotBuilt(ShoalError):
    """Outside the product or not built yet."""

    status = 501


class Unavailable(ShoalError):
    """No manager, no leader or no quorum."""

    status = 503


class NotLeader(Unavailable):
    """This member is not the leader, or ceased to be while the proposal was under way.

    `leader_address` is where the leader's node port answers, empty if that is not known.
    """

    def __init__(self, message: str, leader_address: str = "") -> None:
        super().__init__(message)
        self.leader_address = leader_address


class Locked(Unavailable):
    """What the manager keeps on disk can be opened only with the unlock key."""

    def __init__(
        self,
        message: str = "Swarm is encrypted and needs to be unlocked before it can be used. "
        'Please use "docker swarm unlock" to unlock it.',
    ) -> None:
        super().__init__(message)


class WrongUnlockKey(Unauthenticated):
    """The unlock key does not open what it should."""

    def __init__(self, message: str = "swarm could not be unlocked: invalid key provided") -> None:
        super().__init__(message)


def make_error(status: int, message: str) -> ShoalError:
    """Return an error that came as a status code and a text from another node."""
    kinds = (InvalidArgument, Unauthenticated, Forbidden, NotFound, Conflict, NotBuilt, Unavailable)
    return next((kind(message) for kind in kinds if kind.status == status), ShoalError(message))
