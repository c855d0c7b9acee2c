"""As people write a step for Metaflow: a loop that looks for the notice's file."""

import os
import time

from flyteish import current


def start() -> None:
    begun = time.time()
    try:
        while time.time() - begun < 300:
            if os.path.exists(current.spot_termination_notice):
                print("SPOT TERMINATION DETECTED...")
                break
            time.sleep(1)
    except KeyboardInterrupt:
        print("Task was interrupted!")
    print("Task completed or interrupted.")
