"""Prints each record once, across cuts: python client.py ws://127.0.0.1:8080/ws TOKEN notifications,news"""

import json
import random
import sys
import time
from urllib.parse import urlencode

from websockets import InvalidStatus, WebSocketException
from websockets.sync.client import connect

cursors = {}  # topic -> its epoch, and of each partition the next offset wanted (docs/protocol.md, rule 5)


def keep(frame):
    epoch, known = cursors.get(frame["topic"], (None, {}))
    new_epoch, new = frame.get("epoch") or epoch, dict(frame.get("position", {}))
    if "offset" in frame:
        new[str(frame["partition"])] = frame["offset"] + 1
    if new_epoch == epoch and not any(gap["reason"] == "recreated" for gap in frame.get("gaps", [])):
        new = {p: max(known.get(p, 0), new.get(p, 0)) for p in known | new}
    cursors[frame["topic"]] = new_epoch, new


def frames(url, token, names):
    entries = [f"{t}~{e}@" + ",".join(f"{p}:{n}" for p, n in at.items()) for t, (e, at) in cursors.items() if at]
    query = urlencode({"topics": names, "since": ";".join(entries) or "latest"})
    with connect(f"{url}?{query}", additional_headers={"Authorization": f"Bearer {token}"}) as socket:
        while True:
            frame = json.loads(socket.recv())
            for part in frame.get("subscriptions", [frame] if "topic" in frame else []):
                keep(part)
            yield frame


def is_final(error):
    if isinstance(error, InvalidStatus):  # refused at the door
        return error.response.status_code < 500 and error.response.status_code not in (408, 429)
    code = error.rcvd.code if getattr(error, "rcvd", None) else 1006
    return code in (1000, 1002, 1007, 1009) or 4400 <= code < 4500


pause = 1.0  # seconds until the next attempt
while True:
    try:
        for frame in frames(*sys.argv[1:]):  # where tokens expire, get a new one here
            pause = 1.0
            if frame["type"] == "MESSAGE":
                print(frame["topic"], frame["partition"], frame["offset"], json.dumps(frame["data"]), flush=True)
            for gap in frame.get("gaps", []):
                print("missing:", frame["topic"], gap, file=sys.stderr)
    except (OSError, WebSocketException) as error:
        if is_final(error):
            sys.exit(f"not to be tried again: {error}")
        time.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, 30.0)
