"""A client of the daemon for agents in Python, using only the standard library.

Run by the daemon, this file is an example: it prints who it is, starts one data analyst if its template allows that,
waits for the result, and returns it as its own. Import `Daemon` to use it in your own agent.
"""

import http.client
import json
import os
import socket
import time
import urllib.parse
import uuid


class DaemonError(Exception):
    """A refused request: `code`, the detail as text, and `hint`, which says what to do next."""

    def __init__(self, problem):
        super().__init__(problem.get("detail", "the daemon refused"))
        self.code = problem.get("code", "internal")
        self.hint = problem.get("hint", "")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Daemon:
    """The daemon that started this agent, found by its environment variables."""

    def __init__(self, env=os.environ):
        self.agent_id = env["OPENSTARRY_AGENT_ID"]
        self._socket = env["OPENSTARRY_API_SOCKET"]
        self._token_file = env["OPENSTARRY_TOKEN_FILE"]

    def request(self, method, path, body=None, headers=None, timeout=60):
        """Sends one request. Raises DaemonError if it is refused, and OSError if there is no daemon."""
        connection = _UnixConnection(self._socket, timeout)
        try:
            response = self._ask(connection, method, path, body, headers)
            return json.loads(response.read() or b"null")
        finally:
            connection.close()

    def _ask(self, connection, method, path, body=None, headers=None):
        with open(self._token_file, encoding="utf-8") as file:
            token = file.read().strip()
        payload = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        all_headers = {"Authorization": f"Bearer {token}", **(headers or {})}
        if payload is not None:
            all_headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, payload, all_headers)
        except BrokenPipeError:
            pass  # refused before all of it was read: the answer says why
        response = connection.getresponse()
        if response.status >= 300:
            raise DaemonError(json.loads(response.read()))
        return response

    def heartbeat(self, status=None, progress=None):
        report = {"status": status, "progress": progress}
        given = {name: value for name, value in report.items() if value is not None}
        return self.request("POST", f"/agents/{self.agent_id}/heartbeat", given)

    def whoami(self):
        return self.request("GET", "/whoami")

    def start(self, agent_id, template_id, params):
        """Starts an agent. The key makes it safe to repeat the request if no answer came."""
        body = {"agent_id": agent_id, "template_id": template_id, "params": params}
        return self.request("POST", "/agents", body, {"Idempotency-Key": str(uuid.uuid4())})

    def wait(self, agent_id):
        """Waits until the agent has ended. The daemon answers each poll after 30 s at the latest."""
        while True:
            agent = self.request("GET", f"/agents/{agent_id}?wait_for=ended&timeout=30s")
            if agent["state"] in ("stopped", "exited", "failed"):
                return agent

    def result(self, agent_id):
        return self.request("GET", f"/agents/{agent_id}/result")["result"]

    def remove(self, agent_id):
        return self.request("DELETE", f"/agents/{agent_id}")

    def get_state(self, namespace, key):
        """Returns the entry, with `value` and `version`, or None. A namespace is shared, or agent:ID."""
        try:
            return self.request("GET", _state_path(namespace, key))
        except DaemonError as error:
            if error.code == "state_not_found":
                return None
            raise

    def put_state(self, namespace, key, value, **options):
        """Options: `ttl` ("10m"), and `if_version`, a version or "absent"; a mismatch is DaemonError state_conflict."""
        return self.request("PUT", _state_path(namespace, key), {"value": value, **options})

    def delete_state(self, namespace, key):
        return self.request("DELETE", _state_path(namespace, key))["deleted"]

    def list_state(self, namespace, prefix=""):
        """Yields all entries with this key prefix, sorted by key, read page by page."""
        query = {"prefix": prefix}
        while True:
            page = self.request("GET", f"{_state_path(namespace)}?{urllib.parse.urlencode(query)}")
            yield from page["items"]
            if "next_cursor" not in page:
                return
            query["cursor"] = page["next_cursor"]

    def write_state(self, namespace, writes):
        """Applies all or none: {"op": "put", "key", "value"} or {"op": "delete", "key"}, optionally with `if_version`."""
        return self.request("POST", _state_path(namespace), {"writes": writes})["items"]

    def changes(self, namespace, prefix="", after=0):
        """Yields every change after a version, endlessly: the entry, with "deleted" if it was deleted."""
        while True:
            query = urllib.parse.urlencode({"prefix": prefix, "after": after})
            path = f"/state-watch/{urllib.parse.quote(namespace, safe='')}?{query}"
            for event, change in self._stream(path):
                after = change["version"]
                yield {**change, "deleted": True} if event == "delete" else change

    def change_state(self, namespace, key, change):
        """Replaces the value (or None) by `change(value)`; repeats if another agent has changed it meanwhile."""
        while True:
            found = self.get_state(namespace, key)
            value = change(found and found["value"])
            try:
                self.put_state(namespace, key, value, if_version=found["version"] if found else "absent")
                return value
            except DaemonError as error:
                if error.code != "state_conflict":
                    raise

    def publish(self, topic, payload, **options):
        """Returns when the message is kept, with its position. Options: `keep` (False: current readers only), `reply_to`."""
        return self.request("POST", _bus_path(topic), {"payload": payload, **options})

    def ask(self, topic, payload, timeout=30):
        """Returns the reply to a message; DaemonError `timeout` if none came within `timeout` seconds."""
        body = {"payload": payload, "wait_for_reply": True, "timeout": f"{timeout}s"}
        return self.request("POST", _bus_path(topic), body, timeout=timeout + 30)["reply"]

    def messages(self, topics, after=None):
        """Yields all messages of a filter, endlessly: those kept after a position ("0": all), then new ones.

        After a lost connection it continues behind the last message.
        """
        while True:
            last = {} if after is None else {"Last-Event-ID": after}
            for _, message in self._stream(_bus_path(topics), last):
                after = message.get("position", after)
                yield message

    def work(self, topics, group, after=None):
        """Yields the messages for this member of a consumer group, endlessly. Each is redelivered until `ack(message)`."""
        query = urllib.parse.urlencode({"group": group, **({} if after is None else {"after": after})})
        while True:
            for _, message in self._stream(f"{_bus_path(topics)}?{query}"):
                yield message

    def ack(self, message):
        self.request("POST", "/bus-ack", {"ack": message["ack"]})

    def give_back(self, message, delay="0s"):
        """Has the message redelivered, to any member."""
        self.request("POST", "/bus-ack", {"nack": message["ack"], "delay": delay})

    def _stream(self, path, headers=None):
        """Yields server-sent events with their names until the connection ends; the caller then retries, after a moment."""
        # The daemon sends a comment every 15 s, so a longer silence means a dead connection.
        connection = _UnixConnection(self._socket, timeout=60)
        try:
            event = ""
            for line in self._ask(connection, "GET", path, headers=headers):
                name, _, value = line.decode().strip().partition(": ")
                if name == "event":
                    event = value
                elif name == "data" and event == "error":
                    raise DaemonError(json.loads(value))
                elif name == "data":
                    yield event, json.loads(value)
        except DaemonError as error:
            if error.code not in ("bus_unavailable", "state_unavailable", "daemon_busy", "daemon_stopping"):
                raise
        except (OSError, http.client.HTTPException):
            pass  # the daemon is unavailable
        finally:
            connection.close()
        time.sleep(0.2)


def _state_path(namespace, *key):
    return "/".join(["/state", *(urllib.parse.quote(part, safe="") for part in (namespace, *key))])


def _bus_path(topic):
    """Keeps the levels and escapes each; an unescaped "#" would begin a fragment."""
    return "/".join(["/bus", *(urllib.parse.quote(level, safe="") for level in topic.split("/"))])


def main():
    daemon = Daemon()
    print("I am", daemon.whoami()["id"])
    with open(os.environ["OPENSTARRY_PARAMS_FILE"], encoding="utf-8") as file:
        params = json.load(file)
    child = f"{daemon.agent_id}_analyst"
    daemon.start(child, "DataAnalystAgent_v1", {"file": params["file"]})
    daemon.heartbeat(f"waiting for {child}", 0.5)
    daemon.wait(child)
    result = json.loads(daemon.result(child))
    daemon.remove(child)
    with open(os.environ["OPENSTARRY_RESULT_FILE"], "w", encoding="utf-8") as file:
        json.dump(result["findings"], file)
    daemon.heartbeat("done", 1)
    print("\n".join(result["findings"]))


if __name__ == "__main__":
    main()
