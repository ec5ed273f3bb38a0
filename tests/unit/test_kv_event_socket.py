# SPDX-License-Identifier: MIT
"""The frames that Dynamo's ZmqSource subscribes to."""

import pytest
import zmq

from dynamo_tokenspeed.engine.kv_events import KVEventPublisher


class Payloads:
    """Stands where the scheduler does: one payload a call, then None."""

    def __init__(self, *payloads: bytes):
        self.payloads = list(payloads)

    def kv_events(self, timestamp: float):
        return self.payloads.pop(0) if self.payloads else None


@pytest.fixture
def context():
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def publisher(context):
    publisher = KVEventPublisher(context, "tcp://127.0.0.1:*", topic="kv")
    yield publisher
    publisher.close()


def subscribe(context, publisher):
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.RCVTIMEO, 5000)
    socket.connect(publisher.endpoint)
    socket.subscribe(b"kv")
    return socket


def publish_until_subscribed(publisher):
    for _ in range(500):
        publisher.publish(Payloads(b"tick"))
        if publisher._subscribed:
            return
        publisher.socket.poll(10)
    raise AssertionError("the subscription never arrived")


def test_frames_are_topic_big_endian_sequence_and_payload(context, publisher):
    subscriber = subscribe(context, publisher)
    publish_until_subscribed(publisher)
    topic, sequence, payload = subscriber.recv_multipart()
    assert (topic, int.from_bytes(sequence, "big"), payload) == (b"kv", 0, b"tick")


def test_what_is_published_before_the_first_subscriber_is_not_lost(context, publisher):
    for payload in (b"one", b"two"):
        publisher.publish(Payloads(payload))
    subscriber = subscribe(context, publisher)
    publish_until_subscribed(publisher)
    received = [subscriber.recv_multipart() for _ in range(3)]
    assert [frames[2] for frames in received] == [b"one", b"two", b"tick"]
    assert [int.from_bytes(frames[1], "big") for frames in received] == [0, 1, 2]


def test_nothing_is_sent_when_nothing_happened(context, publisher):
    publisher.publish(Payloads())
    publisher.publish(Payloads(b"first"))
    subscriber = subscribe(context, publisher)
    publish_until_subscribed(publisher)
    assert subscriber.recv_multipart()[1:] == [(0).to_bytes(8, "big"), b"first"]


def test_an_endpoint_in_use_is_one_sentence_with_the_flag(context, publisher):
    with pytest.raises(OSError, match=r"tcp://127.*cannot be bound .* --kv-events-config"):
        KVEventPublisher(context, publisher.endpoint)
