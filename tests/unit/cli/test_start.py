"""What a command does not need is not imported: a list appears at once."""

import os
import subprocess
import sys

import pytest

# heavy, and of no use to a list: structs, Compose, templates, what waits for services, what compares words
NEEDLESS = {
    "aiohttp", "asyncio", "csv", "decimal", "difflib", "msgspec", "shlex", "shutil", "subprocess", "tempfile", "yaml",
    "shoal.cli.converge", "shoal.cli.examples", "shoal.cli.pretty", "shoal.compose.services",
    "shoal.language.golang_template", "shoal.model",
}  # fmt: skip
LISTS = ("service ls", "node ls", "stack ls", "network ls", "ps", "images", "version")


@pytest.mark.parametrize("words", LISTS)
def test_a_list_imports_little(words, tmp_path):
    # nobody answers there: whatever is imported for the list itself has been by then
    program = (
        "import sys\n"
        "from shoal.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit:\n    print(*sys.modules)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, *words.split()],
        env=os.environ | {"SHOAL_HOST": f"unix://{tmp_path}/none.sock"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Cannot connect to the daemon" in ended.stderr
    modules = ended.stdout.split()
    assert "shoal.cli.session" in modules
    assert set(modules) & NEEDLESS == set()
