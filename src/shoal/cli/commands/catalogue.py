"""Where the commands of containers and images are, and what they do: the groups and the top level offer the same ones.

Nothing is imported for it: the top level reads it at every start.
"""

from __future__ import annotations

Place = tuple[str, str]

_COMMANDS = "shoal.cli.commands"
_FILES = f"{_COMMANDS}.files"
_IMAGE = f"{_COMMANDS}.image"
_INSIDE = f"{_COMMANDS}.inside"
_LIFE = f"{_COMMANDS}.container_life"
_REGISTRY = f"{_COMMANDS}.image_registry"

CONTAINER: dict[str, Place] = {
    "diff": (f"{_FILES}:diff", "Show which files of a container were changed"),
    "exec": (f"{_INSIDE}:execute", "Run a command in a container"),
    "export": (f"{_FILES}:export", "Write a container's files as a tar archive"),
    "inspect": (f"{_COMMANDS}.inspect:inspect_container", "Show all there is of containers"),
    "kill": (f"{_LIFE}:kill", "Send containers a signal"),
    "logs": (f"{_COMMANDS}.container:logs", "Show the output of a container"),
    "ls": (f"{_COMMANDS}.container:list_containers", "List the containers of this node"),
    "pause": (f"{_LIFE}:pause", "Freeze containers"),
    "prune": (f"{_COMMANDS}.prune:prune_containers", "Remove all stopped containers"),
    "rename": (f"{_LIFE}:rename", "Give a container another name"),
    "restart": (f"{_LIFE}:restart", "Stop containers and start them again"),
    "rm": (f"{_LIFE}:remove", "Remove containers"),
    "start": (f"{_LIFE}:start", "Start containers that were stopped"),
    "stats": (f"{_INSIDE}:stats", "Show what containers use"),
    "stop": (f"{_LIFE}:stop", "Stop containers"),
    "top": (f"{_INSIDE}:top", "Show the processes of a container"),
    "unpause": (f"{_LIFE}:unpause", "Let frozen containers go on"),
    "wait": (f"{_LIFE}:wait", "Wait until containers have ended"),
}
IMAGE: dict[str, Place] = {
    "history": (f"{_IMAGE}:history", "Show how an image was made"),
    "import": (f"{_IMAGE}:import_image", "Make an image out of a root filesystem"),
    "inspect": (f"{_COMMANDS}.inspect:inspect_image", "Show all there is of images"),
    "load": (f"{_IMAGE}:load", "Load images from an archive"),
    "ls": (f"{_IMAGE}:list_images", "List the images of this node"),
    "prune": (f"{_COMMANDS}.prune:prune_images", "Remove images that nothing uses"),
    "pull": (f"{_REGISTRY}:pull", "Get an image from a registry"),
    "push": (f"{_REGISTRY}:push", "Send an image to its registry"),
    "rm": (f"{_IMAGE}:remove", "Remove images"),
    "save": (f"{_FILES}:save", "Write images as a tar archive"),
    "tag": (f"{_IMAGE}:tag", "Give an image another name"),
}
# as at docker's top level: under other names, or not there
TOP: dict[str, Place] = {
    **{name: place for name, place in CONTAINER.items() if name not in ("inspect", "ls", "prune")},
    "ps": CONTAINER["ls"],
    **{name: place for name, place in IMAGE.items() if name not in ("inspect", "ls", "prune", "rm")},
    "images": IMAGE["ls"],
    "rmi": IMAGE["rm"],
}
