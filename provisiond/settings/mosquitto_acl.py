"""Access rules for a site's mosquitto: each device its own topics, provisiond those that it answers on."""

from typing import Final

DEFAULT_USER: Final = "provisiond"

_RULES: Final = """\
# Access rules for provisiond at a mosquitto of the site's; name this file in mosquitto.conf:
#
#     acl_file /etc/mosquitto/provisiond.acl
#     allow_anonymous false
#     max_packet_size 131072
#
# mosquitto refuses what no rule allows, except subscriptions: it grants any, and delivers only what may be read. So
# whoever has a login may join the group in which provisiond's daemons share requests, and each request that falls to it
# is lost. Give the group a name that nobody guesses, `group = "provisiond-8f3a…"` in [broker.external], or with one
# daemon write `shared_subscriptions = "off"`.

# Every device: its requests, and the answers to them. %u is its user name, which must be its registration id: from a
# password file, or from its certificate (use_identity_as_username true). Where user names are something else and
# another plugin ties client ids to devices, write %c, the client id, in place of %u; without such a plugin anybody may
# call itself anything, and %c protects nothing.
pattern write provisiond/v1/%u/req/#
pattern read provisiond/v1/%u/res/#

# provisiond: all requests, all answers, events and its status.
user {user}
topic read provisiond/v1/+/req/#
topic write provisiond/v1/+/res/#
topic write provisiond/v1/_events/#
topic readwrite provisiond/v1/_status

# Operators: what happens, and whether provisiond runs. Replace the name by yours; repeat for more.
user operator
topic read provisiond/v1/_events/#
topic read provisiond/v1/_status
"""


def render_mosquitto_acl(user: str | None = None) -> str:
    """The text of an `acl_file`.

    Args:
        user: provisiond's user name at the broker; None for the default.
    """
    return _RULES.format(user=user or DEFAULT_USER)
