"""The exceptions a user can meet, and the exit code each one becomes.

    BlowoutError                      1   something the user should read
    ├── InputError                    2   a file or an option is wrong
    │   ├── ScenarioError             2   ... in a scenario file: names file, line, field
    │   ├── TraceError                2   ... in a trace file: names file, row, column
    │   ├── RuleError                 2   ... in a file of Prometheus rules: names file, line, rule, position
    │   └── HardwareError             2   ... a model that does not fit, a combination nobody measured
    ├── RunError                      3   the run is not valid (too few samples, overloaded)
    └── EndpointError                 4   an endpoint could not be reached, or was left for safety

Only the command line turns these into exit codes; nothing else catches them.
"""


class BlowoutError(Exception):
    """A failure that is told to the user in one sentence, never as a traceback."""

    exit_code = 1


class InputError(BlowoutError):
    """A file, an option or a value from the user is not what was expected."""

    exit_code = 2


class ScenarioError(InputError):
    """A scenario file is wrong; the message names file, line, field and what was expected."""


class TraceError(InputError):
    """A trace file is wrong; the message names file, row and column."""


class RuleError(InputError):
    """A file of Prometheus rules is wrong; the message names file, line and rule, and where in an expression."""


class HardwareError(InputError):
    """A model does not fit, or its step times were never measured on that hardware."""


class RunError(BlowoutError):
    """A run ended, but its numbers are not to be used."""

    exit_code = 3


class EndpointError(BlowoutError):
    """An endpoint did not answer as it should, or was left alone for safety."""

    exit_code = 4
