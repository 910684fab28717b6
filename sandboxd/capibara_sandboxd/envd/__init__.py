"""The envd interface (port 49983): Connect RPC and HTTP files, answered by the agent."""
