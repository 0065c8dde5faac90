"""One script of commands, run by the same docker command against a real Docker Swarm and against Shoal.

`script.txt` says what is run, `docker.txt` what Docker answered (`record.py` makes it anew), `shoal.txt` where
Shoal answers otherwise and why; `test_transcript.py` runs the script against Shoal and compares.
"""
