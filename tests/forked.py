"""A piece of a test in a process of its own, which may be killed."""

import os


def in_child(function) -> int:
    """Run in a forked process; returns 0, 1 (an error) or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
