"""The program that runs a job inside a sandbox and keeps its event log there.

These files are uploaded as they are and run by whatever ``python3`` the sandbox has: standard
library only, Python 3.8 and later, and no imports of other packages of the operator.
"""
