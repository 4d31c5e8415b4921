"""What a reload takes over, and what it says has to wait."""

from provisiond.settings import Settings
from provisiond.settings.reloading import take_over


def settings(**sections):
    return Settings.model_validate(sections)


def test_limits_hubs_and_the_log_are_taken_over():
    read = settings(
        broker={"limits": {"max_connections": 7}},
        log={"level": "debug"},
        hubs=[{"name": "other", "type": "embedded", "host": "other.local"}],
    )
    in_force, waiting = take_over(settings(), read)
    assert in_force == read
    assert waiting == ()


def test_sockets_the_id_scope_and_the_database_stay_and_are_named():
    running = settings(service={"id_scope": "0ne0OLD"})
    read = settings(
        service={"id_scope": "0ne0NEW"},
        store={"url": "sqlite:////elsewhere.db"},
        broker={"listeners": [{"name": "local", "bind": "127.0.0.1:1884"}], "limits": {"max_connections": 7}},
        metrics={"enabled": False},
    )
    in_force, waiting = take_over(running, read)
    assert waiting == ("service.id_scope", "store.url", "broker.listeners", "metrics.enabled")
    assert in_force.service == running.service
    assert in_force.broker.limits.max_connections == 7
    assert in_force.broker.listeners == running.broker.listeners


def test_what_waits_is_named_at_every_reload_until_the_file_says_again_what_runs():
    running, read = settings(), settings(service={"id_scope": "0ne0NEW"})
    once, _ = take_over(running, read)
    twice, waiting = take_over(once, read)
    assert waiting == ("service.id_scope",)
    assert take_over(twice, running) == (running, ())
