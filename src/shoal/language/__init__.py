"""The small languages of flags and formats (docker-swarm.md 1.3). Pure: text in, Docker's JSON out."""
