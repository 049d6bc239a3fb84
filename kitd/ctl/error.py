"""The errors of the command line itself."""

from kitd.client.error import RpcError
from kitd.client.record import Job
from kitd.errors import KitdError


class UsageError(KitdError):
    """The command line does not say what to do."""

    code = "usage"


class InterruptedByUserError(KitdError):
    """The person pressed Ctrl-C. A job that was waited for goes on."""

    code = "interrupted"


class JobFailedError(RpcError):
    """The job that a command waited for did not succeed; the code is the job's.

    It may be tried again.
    """

    def __init__(self, job: Job) -> None:
        failure = job.error
        if job.is_terminal and job.state != "failed":
            code, reason, hint = job.state, f"it was {job.state}", None
        elif failure is None:
            code, reason, hint = "failed", "kitd gave no reason", None
        else:
            code, reason, hint = failure.code, failure.message, failure.hint
        super().__init__(code, f"job {job.id} ({job.kind}): {reason}", hint=hint, retryable=False)
