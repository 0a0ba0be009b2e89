"""An agent that uses MQTT: it answers the messages in its inbox (needs paho-mqtt: pip install paho-mqtt).

A template for it, under a daemon with the bus `bus-mqtt`:

    template_id: Echo_v1
    command: python3
    args: [/path/to/paho_agent.py]
    requires: [bus]

Messages are JSON. MQTT 3.1.1 has no reply topic, so by convention it is in the message itself:
{"question": ..., "reply_to": "shared/answers"}. Without one, the answer goes to `agents/ID/answers`.
"""

import json
import os
import re
import signal
import urllib.parse

import paho.mqtt.client as mqtt

AGENT_ID = os.environ["OPENSTARRY_AGENT_ID"]
INBOX = f"agents/{AGENT_ID}/inbox"
ANSWERS = f"agents/{AGENT_ID}/answers"


def answer(message):
    """Does the agent's work. This example repeats the question."""
    return {"agent_id": AGENT_ID, "you_asked": message.get("question")}


def reply_topic(message):
    """Returns a topic where every agent may publish: the broker disconnects a client that publishes elsewhere."""
    topic = message.get("reply_to")
    if isinstance(topic, str) and re.fullmatch(r"shared(/[A-Za-z0-9._-]{1,40}){1,4}", topic):
        return topic
    return ANSWERS


def on_connect(client, _userdata, _flags, code):
    if code != 0:
        print(f"connection refused: {mqtt.connack_string(code)}", flush=True)
        return
    # At every connection: it costs nothing if the session already has the subscription.
    client.subscribe(INBOX, qos=1)


def on_subscribe(_client, _userdata, _mid, _granted):
    print(f"listening on {INBOX}", flush=True)


def on_message(client, _userdata, message):
    """Answers a message. It is acknowledged when this returns, otherwise redelivered, so one may come twice."""
    try:
        asked = json.loads(message.payload)
    except ValueError:
        asked = message.payload.decode("utf-8", "replace")
    if not isinstance(asked, dict):
        asked = {"question": asked}
    client.publish(reply_topic(asked), json.dumps(answer(asked)), qos=1)


def main():
    # paho-mqtt 2 must be given the version of its callbacks.
    version = [mqtt.CallbackAPIVersion.VERSION1] if hasattr(mqtt, "CallbackAPIVersion") else []
    # A client ID and clean_session=False: messages wait for this agent while it is disconnected.
    client = mqtt.Client(*version, client_id="inbox", clean_session=False)
    with open(os.environ["OPENSTARRY_TOKEN_FILE"], encoding="utf-8") as file:
        client.username_pw_set(AGENT_ID, file.read().strip())
    client.on_connect = on_connect
    client.on_subscribe = on_subscribe
    client.on_message = on_message
    client.reconnect_delay_set(min_delay=1, max_delay=5)
    signal.signal(signal.SIGTERM, lambda *_: client.disconnect())

    url = urllib.parse.urlsplit(os.environ["OPENSTARRY_BUS_URL"])
    client.connect_async(url.hostname, url.port, keepalive=30)
    # Reconnects by itself.
    client.loop_forever(retry_first_connection=True)


if __name__ == "__main__":
    main()
