"""The error that people see."""


class InputError(Exception):
    """Bad input: one message that names the file or key, what was expected, what was found, how to mend it.

    `pipeline.commands.stage.run` prints the message alone and exits with 1; every other exception is a
    defect of ours and keeps its traceback.
    """
