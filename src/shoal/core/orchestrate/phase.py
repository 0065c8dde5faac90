"""What an update allows the rest of the orchestrator, read off the service alone."""

from __future__ import annotations

from shoal.core.defaults import update_config
from shoal.core.extensions import BLUE_GREEN, CANARY, STRATEGY
from shoal.model.objects import Service
from shoal.model.states import Promotion, UpdateState

STANDING_STATES = (UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED)
FINISHED_STATES = (UpdateState.COMPLETED, UpdateState.ROLLBACK_COMPLETED)
ROLLBACK_STATES = (UpdateState.ROLLBACK_STARTED, UpdateState.ROLLBACK_PAUSED, UpdateState.ROLLBACK_COMPLETED)


def is_rollback(service: Service) -> bool:
    """Whether a service goes back, or went back last, to a spec before."""
    status = service.update_status
    return status is not None and status.state in ROLLBACK_STATES


def stands_still(service: Service) -> bool:
    """Whether its update is paused: slots stay with the task that runs."""
    status = service.update_status
    return status is not None and status.state in STANDING_STATES


def awaits_promotion(service: Service) -> bool:
    """Whether its canaries run and the rest waits for a word."""
    status = service.update_status
    return stands_still(service) and status is not None and status.promotion in (Promotion.AWAITED, Promotion.HELD)


def starts_beside(service: Service) -> bool:
    """Whether a new task starts while the one it replaces runs on: start-first, and the update goes on."""
    if withholds(service):
        return True
    return not stands_still(service) and update_config(service.spec, is_rollback(service)).order == "start-first"


def withholds(service: Service) -> bool:
    """Whether new tasks of an update take no traffic (yet): until all that is there goes over to them at once."""
    if service.spec.labels.get(STRATEGY) != BLUE_GREEN:
        return False
    status = service.update_status
    return status is None or status.state not in FINISHED_STATES


def keeps_old_spec(service: Service) -> bool:
    """Whether an outdated task that fails comes back as it was: its update has not come to it yet."""
    return is_canary_phase(service) or withholds(service)


def is_canary_phase(service: Service) -> bool:
    """Whether only canaries may have the newest spec: an update with a canary that was not promoted yet."""
    if CANARY not in service.spec.labels:
        return False
    status = service.update_status
    return status is None or (
        status.state in (UpdateState.UPDATING, UpdateState.PAUSED) and status.promotion != Promotion.GIVEN
    )
