"""One target, in this process, until libFuzzer ends it: `python -m tests.fuzz.here TARGET OPTION ...`."""

import sys

import atheris

with atheris.instrument_imports(include=["provisiond"]):  # before anything else has imported them
    from tests.fuzz.door import PacketPath
    from tests.fuzz.targets import group

DOOR = "listener"

if __name__ == "__main__":
    _, name, *options = sys.argv
    atheris.Setup([sys.argv[0], *options], PacketPath().feed if name == DOOR else group(name).try_one)
    atheris.Fuzz()
