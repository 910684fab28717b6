"""What runs inside a sandbox: the agent and the code interpreter.

The agent is standard library only and imports nothing of the daemon: it is started with
``-I -S`` from a read-only bind of this directory. The daemon imports ``frames`` from here.
"""
