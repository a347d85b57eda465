"""The command line and the execution of notebooks."""
