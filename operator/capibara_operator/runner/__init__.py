"""The program that runs inside a sandbox. It is shipped as a file and imports nothing of ours."""
