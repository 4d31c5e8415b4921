import asyncio
import socket

from provisiond.mqtt_client import Client


async def test_a_socket_that_is_closed_before_it_is_watched_does_not_lend_its_number_to_another():
    failures = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["message"]))
    client = Client("127.0.0.1", 1883, identifier="gone")
    ours, _ = pair = socket.socketpair()
    number = ours.fileno()
    client._on_socket_register_write(client._client, None, ours)
    for end in pair:
        end.close()
    others = socket.socketpair()  # the lowest numbers that are free: those that have just been let go
    try:
        assert others[0].fileno() == number
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not asyncio.get_running_loop().remove_writer(number)
    finally:
        for end in others:
            end.close()
    assert failures == []
