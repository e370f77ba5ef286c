"""Publishes events without a pause and receives their deliveries, until standard input ends. Then it waits for the last delivery
and prints what was accepted and what arrived, as JSON: python3 traffic.py SERVER KEY EVENT

A call that fails is repeated with its idempotency key until it is accepted, as a good client does.
"""

import http.server
import json
import sys
import threading
import time
import urllib.error
import urllib.request

SERVER, KEY, EVENT = sys.argv[1:]
RECEIVER = ("127.0.0.1", 9090)
PATIENCE = 60
arrived = set()


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        arrived.add(body["data"]["n"])
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


def call(path, body, key=None):
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    headers |= {"idempotency-key": key} if key else {}
    request = urllib.request.Request(f"{SERVER}/v1/{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def main():
    server = http.server.ThreadingHTTPServer(RECEIVER, Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    call("webhooks", {"url": f"http://{RECEIVER[0]}:{RECEIVER[1]}/", "events": [EVENT]})
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    accepted = failed = 0
    print("publishing", flush=True)
    while not stop.is_set():
        try:
            call("events", {"event": EVENT, "data": {"n": accepted}}, key=f"traffic-{accepted}")
            accepted += 1
        except (urllib.error.URLError, OSError):
            failed += 1
            time.sleep(0.02)
    deadline = time.monotonic() + PATIENCE
    while len(arrived) < accepted and time.monotonic() < deadline:
        time.sleep(0.05)
    missing = sorted(set(range(accepted)) - arrived)
    print(json.dumps({"accepted": accepted, "failed": failed, "missing": missing}))


main()
