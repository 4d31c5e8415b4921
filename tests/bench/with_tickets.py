"""The daemon, sending TLS session tickets as OpenSSL does by default: only for the row that compares at equal work.

A ticket is never of use to a device, for sessions are not cached and every certificate is judged anew.
"""

import runpy

from OpenSSL import SSL

if __name__ == "__main__":
    SSL.OP_NO_TICKET = 0
    runpy.run_module("provisiond", run_name="__main__")
