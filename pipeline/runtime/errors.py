"""The error that people see."""


class InputError(Exception):
    """Bad input: one message that names the file or key, what was expected, what was found, how to mend it.

    `pipeline.commands.stage.run` prints the message alone and exits with 1; every other exception is a
    defect of ours and keeps its traceback.
    """


def message(error: InputError) -> str:
    """Its text alone: torch wraps an error of a data loader's process in that process's traceback."""
    return str(error).rpartition("InputError: ")[2].strip()
