"""What is done: one module, or package, for each kind of job, listed in `KINDS`.

To add one, write a module with an args struct, a result struct, `run` and a `JobKind`, and add its
line here. A kind knows the ports in `kitd.jobs.port` and nothing behind them; kinds do not know
each other: what follows a finished job is decided in `kitd.triggers`.
"""

from collections.abc import Mapping

from kitd.jobs import collect, import_kit, pack, pull, push, survey, verify
from kitd.jobs.mirror.kind import MIRROR
from kitd.jobs.port import Ports
from kitd.queue.kind import AnyKind

KINDS: Mapping[str, AnyKind[Ports]] = {
    kind.name: kind
    for kind in (
        pack.PACK,
        push.PUSH,
        pull.PULL,
        import_kit.IMPORT,
        MIRROR,
        survey.SURVEY,
        collect.COLLECT,
        verify.VERIFY,
    )
}
