"""The blocks of tutorial and how-tos, run as they stand: `sh` blocks by one shell, in order, on a lab.

A line that ends with `# refused` must fail; every other command must succeed.
"""

import os
import re
import secrets
import shutil
import subprocess
from pathlib import Path

import pytest

from shoal.lab.lab import take_down
from tests.system.daemon import REPOSITORY, write_shoal_program
from tests.system.lab import running_lab

pytestmark = pytest.mark.root

DOCS = REPOSITORY / "docs"
RUN_SECONDS = 180
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+?)(?:#[^)]*)?\)")


def blocks(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text())


def script_of(page: Path) -> str:
    """Return the blocks as one script that ends at the first command that does not do what the page says."""
    lines = ["set -euo pipefail"]
    for line in "".join(blocks(page)).splitlines():
        command, refused, _ = line.partition("# refused")
        lines.append(
            f"if {command.strip()}; then echo 'not refused: {command.strip()}'; exit 99; fi" if refused else line
        )
    return "\n".join(lines)


@pytest.fixture
def run_page(tmp_path):
    """Run a page in an empty directory, with `shoal` on the PATH."""
    programs = tmp_path / "bin"
    programs.mkdir()
    write_shoal_program(programs)

    def run(page: Path, **environment: str) -> None:
        work = tmp_path / "work"
        work.mkdir()
        done = subprocess.run(
            ["bash", "-c", script_of(page)], cwd=work, capture_output=True, text=True, timeout=RUN_SECONDS, check=False,
            env={
                **os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY / "src"),
                "DOCKER_CONFIG": str(tmp_path / "docker"), **environment,
            },
        )  # fmt: skip
        assert done.returncode == 0, f"{page.name}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"

    return run


def test_the_tutorial(run_page):
    name = f"d{secrets.token_hex(4)}"
    try:
        run_page(DOCS / "tutorial" / "swarm.md", SHOAL_LAB=name)
    finally:
        take_down(name)


@pytest.fixture(scope="module")
def lab():
    with running_lab(managers=3, workers=0) as lab:
        yield lab


@pytest.mark.parametrize("name", ["deploy-a-stack", "rotate-a-secret", "canary"])
def test_how_to(name, run_page, lab):
    run_page(DOCS / "how-to" / f"{name}.md", DOCKER_HOST=lab.node("m1").host, SHOAL_LAB=lab.name)


def test_how_to_lose_a_majority_and_all(run_page, lab, tmp_path):
    """The last two: what they leave of the lab is one manager of a restored swarm."""
    place = {"DOCKER_HOST": lab.node("m1").host, "SHOAL_LAB": lab.name}
    run_page(DOCS / "how-to" / "recover-from-lost-quorum.md", **place)
    shutil.rmtree(tmp_path / "work")
    run_page(DOCS / "how-to" / "back-up-and-restore.md", **place)


def test_the_chinese_tutorial_runs_the_same_commands():
    def commands(page: str) -> list[str]:
        return [re.sub(r"\s+#(?! refused).*", "", block) for block in blocks(DOCS / "tutorial" / page)]

    assert commands("swarm.zh.md") == commands("swarm.md")


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target
