"""What the kernel says of this process."""

import subprocess
import sys
import time

CODE = """
import time
from kitd.metrics.process import process_age_s
import asyncio, aiohttp.web
print(time.time() - process_age_s())
"""


def test_a_process_is_as_old_as_since_it_began_and_not_since_it_was_asked():
    before_s = time.time()
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, check=True, text=True)
    after_s = time.time()
    started_s = float(done.stdout)
    # The kernel counts in hundredths.
    assert before_s - 0.05 <= started_s
    assert started_s - before_s < after_s - started_s
