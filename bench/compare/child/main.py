"""One measurement in a process of its own, as in main.mjs: main.py <contender> <JSON of the request>."""

import importlib
import json
import os
import signal
import sys

import drive


def measure(name, request):
    try:
        with importlib.import_module(name).Contender(request["workers"], request["variant"]) as pool:
            return {"figures": drive.DRIVES[request["drive"]](pool, request["size"], request["workers"])}
    except drive.WrongResult as error:
        return {"failure": {"kind": "wrong", "message": str(error)}}
    except Exception as error:
        return {"failure": {"kind": "failed", "message": f"{type(error).__name__}: {error}"}}


def end(*_):
    """Whoever is stopped takes its workers along, which would wait for ever."""
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    if os.name == "posix":
        os.setpgrp()
        signal.signal(signal.SIGTERM, end)
    print(json.dumps(measure(sys.argv[1], json.loads(sys.argv[2]))))
