"""`/shoal/doctor`: what this node finds wrong with itself and with its ways to the others (Shoal's own route)."""

from __future__ import annotations

from aiohttp import web

from shoal.api.context import CONTEXT
from shoal.api.responses import json_response
from shoal.api.routing import Route
from shoal.model.diagnosis import Finding


def finding_view(finding: Finding) -> dict[str, str]:
    """Return a finding as JSON."""
    return {"Check": finding.check, "Level": finding.level, "Text": finding.text, "Remedy": finding.remedy}


async def doctor(request: web.Request) -> web.Response:
    """Answer with the findings of the node that was asked."""
    context = request.app[CONTEXT]
    findings = await context.examine()
    return json_response({"Node": context.host().hostname, "Findings": [finding_view(each) for each in findings]})


ROUTES = (Route("GET", "/shoal/doctor", doctor),)
