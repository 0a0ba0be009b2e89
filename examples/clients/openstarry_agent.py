"""What an agent in Python needs of the daemon, with nothing but the standard library.

Run by the daemon, this file shows itself: it says who it is, starts one data analyst if its template lets
it, waits for the result, and leaves that as its own. Import `Daemon` to use it in an agent of yours.
"""

import http.client
import json
import os
import socket
import time
import urllib.parse
import uuid


class DaemonError(Exception):
    """What the daemon refused: `code`, the detail as text, and `hint`, which says what to do next."""

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
    """The daemon that started this agent, found by the variables that it set."""

    def __init__(self, env=os.environ):
        self.agent_id = env["OPENSTARRY_AGENT_ID"]
        self._socket = env["OPENSTARRY_API_SOCKET"]
        self._token_file = env["OPENSTARRY_TOKEN_FILE"]

    def request(self, method, path, body=None, headers=None, timeout=60):
        """One request. Returns the answer; raises DaemonError for a refusal and OSError for no daemon."""
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
            pass  # refused before it was all read: the answer says why
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
        """The key makes it safe to send the same request again when no answer came."""
        body = {"agent_id": agent_id, "template_id": template_id, "params": params}
        return self.request("POST", "/agents", body, {"Idempotency-Key": str(uuid.uuid4())})

    def wait(self, agent_id):
        """Until it has ended. The daemon answers every poll after 30 s at the latest."""
        while True:
            agent = self.request("GET", f"/agents/{agent_id}?wait_for=ended&timeout=30s")
            if agent["state"] in ("stopped", "exited", "failed"):
                return agent

    def result(self, agent_id):
        return self.request("GET", f"/agents/{agent_id}/result")["result"]

    def remove(self, agent_id):
        return self.request("DELETE", f"/agents/{agent_id}")

    def get_state(self, namespace, key):
        """The entry, with `value` and `version`; None when there is none. A namespace is shared, or agent:ID."""
        try:
            return self.request("GET", _state_path(namespace, key))
        except DaemonError as error:
            if error.code == "state_not_found":
                return None
            raise

    def put_state(self, namespace, key, value, **options):
        """Options: `ttl` ("10m"), and `if_version`, a version or "absent": else DaemonError state_conflict."""
        return self.request("PUT", _state_path(namespace, key), {"value": value, **options})

    def delete_state(self, namespace, key):
        return self.request("DELETE", _state_path(namespace, key))["deleted"]

    def list_state(self, namespace, prefix=""):
        """All entries whose keys begin so, in the order of their keys, read page by page."""
        query = {"prefix": prefix}
        while True:
            page = self.request("GET", f"{_state_path(namespace)}?{urllib.parse.urlencode(query)}")
            yield from page["items"]
            if "next_cursor" not in page:
                return
            query["cursor"] = page["next_cursor"]

    def write_state(self, namespace, writes):
        """All of these or none: {"op": "put", "key", "value"} or {"op": "delete", "key"}, with `if_version` too."""
        return self.request("POST", _state_path(namespace), {"writes": writes})["items"]

    def changes(self, namespace, prefix="", after=0):
        """Every change behind a version, for ever: the entry, with "deleted" when it is not there any more."""
        while True:
            query = urllib.parse.urlencode({"prefix": prefix, "after": after})
            path = f"/state-watch/{urllib.parse.quote(namespace, safe='')}?{query}"
            for event, change in self._stream(path):
                after = change["version"]
                yield {**change, "deleted": True} if event == "delete" else change

    def change_state(self, namespace, key, change):
        """Puts what `change` makes of the value, or of None; anew when another has changed it meanwhile."""
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
        """Returns when the message is kept, with its position. Options: `keep` (False: only for who is there), `reply_to`."""
        return self.request("POST", _bus_path(topic), {"payload": payload, **options})

    def ask(self, topic, payload, timeout=30):
        """The reply to a message; DaemonError `timeout` when none came within so many seconds."""
        body = {"payload": payload, "wait_for_reply": True, "timeout": f"{timeout}s"}
        return self.request("POST", _bus_path(topic), body, timeout=timeout + 30)["reply"]

    def messages(self, topics, after=None):
        """All messages of a filter, for ever: those kept after a position, "0" for all, then what comes.

        A lost connection is taken up again behind the last message that was read.
        """
        while True:
            last = {} if after is None else {"Last-Event-ID": after}
            for _, message in self._stream(_bus_path(topics), last):
                after = message.get("position", after)
                yield message

    def work(self, topics, group, after=None):
        """What comes to this member of a group, for ever. Each comes again until `ack(message)`."""
        query = urllib.parse.urlencode({"group": group, **({} if after is None else {"after": after})})
        while True:
            for _, message in self._stream(f"{_bus_path(topics)}?{query}"):
                yield message

    def ack(self, message):
        self.request("POST", "/bus-ack", {"ack": message["ack"]})

    def give_back(self, message, delay="0s"):
        """It comes again, to whichever member."""
        self.request("POST", "/bus-ack", {"nack": message["ack"], "delay": delay})

    def _stream(self, path, headers=None):
        """Server-sent events, each with its name, until the connection ends; then the caller asks again, after a moment."""
        # The daemon sends a comment every 15 s: what is silent for longer is gone.
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
            pass  # the daemon is away
        finally:
            connection.close()
        time.sleep(0.2)


def _state_path(namespace, *key):
    return "/".join(["/state", *(urllib.parse.quote(part, safe="") for part in (namespace, *key))])


def _bus_path(topic):
    """Levels stay levels; a final "#" would be a fragment otherwise."""
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
